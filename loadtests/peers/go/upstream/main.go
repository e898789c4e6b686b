// What stands behind every proxy for large bodies and WebSockets; small answers come from nginx, which costs less.
//
//	upstream [-port 9200]    else ACTOR_WEB_SERVER_PORT
//
// GET /down: 10 MiB. POST /up: reads all, then tells how much it was. GET /ws: a WebSocket that sends back each message.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
)

const size = 10 << 20

var piece = make([]byte, 256<<10)

func down(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	for sent := 0; sent < size; sent += len(piece) {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func up(w http.ResponseWriter, r *http.Request) {
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, make([]byte, 256<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, got)
}

func socket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		http.Error(w, "a WebSocket handshake is expected", http.StatusBadRequest)
		return
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	fmt.Fprintf(connection, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	echo(buffered.Reader, connection)
}

// echo sends each frame back unmasked until a close frame was answered or the other side is gone.
func echo(from *bufio.Reader, to io.Writer) {
	var head [14]byte
	frame := make([]byte, 0, 512)
	for {
		if _, err := io.ReadFull(from, head[:2]); err != nil {
			return
		}
		length := int(head[1] & 0x7f)
		switch length {
		case 126:
			if _, err := io.ReadFull(from, head[2:4]); err != nil {
				return
			}
			length = int(binary.BigEndian.Uint16(head[2:4]))
		case 127:
			return // nothing that long is sent here
		}
		var mask [4]byte
		if head[1]&0x80 != 0 {
			if _, err := io.ReadFull(from, mask[:]); err != nil {
				return
			}
		}
		frame = append(frame[:0], head[0])
		if length < 126 {
			frame = append(frame, byte(length))
		} else {
			frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(length))
		}
		start := len(frame)
		for range length {
			frame = append(frame, 0)
		}
		if _, err := io.ReadFull(from, frame[start:]); err != nil {
			return
		}
		for i := range length {
			frame[start+i] ^= mask[i&3]
		}
		opcode := head[0] & 0x0f
		if opcode == 9 {
			frame[0] = frame[0]&0xf0 | 10
		}
		if opcode != 10 {
			if _, err := to.Write(frame); err != nil {
				return
			}
		}
		if opcode == 8 {
			return
		}
	}
}

func main() {
	port := flag.String("port", os.Getenv("ACTOR_WEB_SERVER_PORT"), "where to listen on 127.0.0.1")
	flag.Parse()
	http.HandleFunc("GET /down", down)
	http.HandleFunc("POST /up", up)
	http.HandleFunc("GET /ws", socket)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+*port, nil))
}
