// The callers that wrk can't play: a fixed rate, WebSocket messages, and sockets that are only held.
//
//	callers rate -at 127.0.0.1:9000 -head HEAD -rate 5000 -secs 2 -connections 32
//	callers echo -at 127.0.0.1:9000 -head HEAD -sockets 32 -secs 2
//	callers hold -at 127.0.0.1:9000 -head HEAD -sockets 1000
//
// HEAD is a whole request head in a file. Each prints one line of JSON; hold prints it when all sockets are open, and
// closes them when its input ends.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const messageBytes = 100

func fail(err error) {
	fmt.Fprintln(os.Stderr, "callers:", err)
	os.Exit(1)
}

func say(facts map[string]any) {
	_ = json.NewEncoder(os.Stdout).Encode(facts)
}

// readHead reads an answer's head and tells its status and the length of its body.
func readHead(from *bufio.Reader) (status, length int, err error) {
	line, err := from.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, errors.New("no status line")
	}
	status, err = strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, 0, err
	}
	for {
		line, err = from.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return status, length, nil
		}
		if len(line) > 15 && strings.EqualFold(string(line[:15]), "content-length:") {
			length, err = strconv.Atoi(strings.TrimSpace(string(line[15:])))
			if err != nil {
				return 0, 0, err
			}
		}
	}
}

// --- A fixed rate -----------------------------------------------------------------------------------------------------

type caller struct {
	at         string
	head       []byte
	connection net.Conn
	from       *bufio.Reader
}

func (c *caller) ask() error {
	if c.connection == nil {
		connection, err := net.Dial("tcp", c.at)
		if err != nil {
			return err
		}
		c.connection, c.from = connection, bufio.NewReaderSize(connection, 16<<10)
	}
	status, err := c.exchange()
	if err == nil && status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		c.connection.Close()
		c.connection = nil
	}
	return err
}

func (c *caller) exchange() (int, error) {
	if err := c.connection.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.connection.Write(c.head); err != nil {
		return 0, err
	}
	status, length, err := readHead(c.from)
	if err != nil {
		return 0, err
	}
	_, err = c.from.Discard(length)
	return status, err
}

// rate sends at fixed moments, whether or not earlier answers have come (an open loop): what is late because all
// connections are busy counts as waiting. The moment that counts is the one at which the schedule's thread really woke,
// so the generator's own timer is not taken for the proxy's time.
func rate(at string, head []byte, perSec float64, secs float64, connections int) {
	total := int(perSec * secs)
	due := make(chan time.Time, total)
	took := make([][]time.Duration, connections)
	var failed atomic.Int64
	var first atomic.Value
	var all sync.WaitGroup
	for i := range connections {
		all.Add(1)
		go func() {
			defer all.Done()
			c := &caller{at: at, head: head}
			if err := c.ask(); err != nil { // the connection itself is not what is measured
				first.CompareAndSwap(nil, err.Error())
			}
			for began := range due {
				if err := c.ask(); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
					continue
				}
				took[i] = append(took[i], time.Since(began))
			}
		}()
	}
	time.Sleep(100 * time.Millisecond)
	// Go's own timers round up to whole milliseconds: requests would come in bursts.
	runtime.LockOSThread()
	start := time.Now()
	every := time.Duration(float64(time.Second) / perSec)
	for i := range total {
		if wait := time.Until(start.Add(time.Duration(i) * every)); wait > 0 {
			pause := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&pause, nil)
		}
		due <- time.Now()
	}
	close(due)
	sent := time.Since(start).Seconds()
	all.Wait()
	times := slices.Concat(took...)
	slices.Sort(times)
	if len(times) == 0 {
		fail(fmt.Errorf("not one answer: %v", first.Load()))
	}
	quantile := func(share float64) float64 {
		return float64(times[min(len(times)-1, int(share*float64(len(times))))].Nanoseconds()) / 1e6
	}
	why, _ := first.Load().(string)
	say(map[string]any{
		"sent": total, "secs": sent, "failed": failed.Load(), "error": why,
		"p50_ms": quantile(0.5), "p95_ms": quantile(0.95), "p99_ms": quantile(0.99), "max_ms": quantile(1),
	})
}

// --- WebSockets -------------------------------------------------------------------------------------------------------

type socket struct {
	connection net.Conn
	from       *bufio.Reader
	frame      []byte
	answer     []byte
}

func open(at string, head []byte) (*socket, error) {
	connection, err := net.Dial("tcp", at)
	if err != nil {
		return nil, err
	}
	s := &socket{connection: connection, from: bufio.NewReaderSize(connection, 4096)}
	if err := connection.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := connection.Write(head); err != nil {
		return nil, err
	}
	status, _, err := readHead(s.from)
	if err != nil {
		return nil, err
	}
	if status != 101 {
		return nil, fmt.Errorf("the handshake was answered by %d", status)
	}
	mask := []byte{0x37, 0xfa, 0x21, 0x3d}
	s.frame = append([]byte{0x81, 0x80 | messageBytes}, mask...)
	for i := range messageBytes {
		s.frame = append(s.frame, 'a'^mask[i&3])
	}
	s.answer = make([]byte, 2+messageBytes)
	return s, connection.SetDeadline(time.Time{})
}

// exchange sends one message and reads it back.
func (s *socket) exchange() error {
	if _, err := s.connection.Write(s.frame); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.from, s.answer); err != nil {
		return err
	}
	if s.answer[0] != 0x81 || s.answer[1] != messageBytes || s.answer[2] != 'a' {
		return fmt.Errorf("not what was sent came back: % x", s.answer[:8])
	}
	return nil
}

func openAll(at string, head []byte, count int) []*socket {
	sockets := make([]*socket, 0, count)
	for range count {
		s, err := open(at, head)
		if err == nil {
			err = s.exchange()
		}
		if err != nil {
			fail(fmt.Errorf("socket %d of %d: %w", len(sockets)+1, count, err))
		}
		sockets = append(sockets, s)
	}
	return sockets
}

// echo counts messages in one direction: each that goes to the upstream, and each that comes back.
func echo(at string, head []byte, count int, secs float64) {
	sockets := openAll(at, head, count)
	var messages atomic.Int64
	var all sync.WaitGroup
	until := time.Now().Add(time.Duration(secs * float64(time.Second)))
	for _, s := range sockets {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(until) {
				if err := s.exchange(); err != nil {
					fail(err)
				}
				messages.Add(2)
			}
		}()
	}
	all.Wait()
	say(map[string]any{"messages": messages.Load(), "secs": secs})
}

func hold(at string, head []byte, count int) {
	sockets := openAll(at, head, count)
	say(map[string]any{"held": len(sockets)})
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, s := range sockets {
		s.connection.Close()
	}
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("rate, echo or hold is expected"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	at := flags.String("at", "", "address of the proxy")
	headFile := flags.String("head", "", "file with the request head")
	perSec := flags.Float64("rate", 1000, "requests per second")
	secs := flags.Float64("secs", 1, "for how long")
	connections := flags.Int("connections", 32, "at most so many requests at once")
	sockets := flags.Int("sockets", 32, "WebSockets")
	_ = flags.Parse(os.Args[2:])
	head, err := os.ReadFile(*headFile)
	if err != nil {
		fail(err)
	}
	switch os.Args[1] {
	case "rate":
		rate(*at, head, *perSec, *secs, *connections)
	case "echo":
		echo(*at, head, *sockets, *secs)
	case "hold":
		hold(*at, head, *sockets)
	default:
		fail(fmt.Errorf("rate, echo or hold is expected, not %q", os.Args[1]))
	}
}
