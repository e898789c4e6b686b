// The peer "go": net/http/httputil.ReverseProxy as its documentation advises, with the headers that Greenroom sets.
//
//	proxy -port 9000 -route local--small-0.localhost=127.0.0.1:9101 -route …
package main

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

const requestID = "X-Actor-Request-Id"

// buffers keep bodies from costing an allocation of 32 KiB each. The documentation calls the pool optional and does not
// advise it, so it belongs to the variant "go_buffer_pool".
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte  { return b.pool.Get().([]byte) }
func (b *buffers) Put(x []byte) { b.pool.Put(x) }

func newID() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}

func main() {
	port := flag.String("port", "", "where to listen on 127.0.0.1")
	routes := map[string]*url.URL{}
	flag.Func("route", "HOST=ADDRESS", func(text string) error {
		host, address, _ := strings.Cut(text, "=")
		routes[host] = &url.URL{Scheme: "http", Host: address}
		return nil
	})
	pooled := flag.Bool("pool", false, "copy bodies through a pool of buffers")
	flag.Parse()

	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		// The default of 2 idle connections per host makes and closes a connection for most requests under load:
		// "MaxIdleConnsPerHost, if non-zero, controls the maximum idle (keep-alive) connections to keep per-host".
		MaxIdleConns:        4096,
		MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:     60 * time.Second,
		// A proxy leaves the coding of bodies to the two ends.
		DisableCompression: true,
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
		// "Rewrite … must not access the original request": hop-by-hop and Forwarded headers are gone from Out already.
		Rewrite: func(r *httputil.ProxyRequest) {
			host, _, err := net.SplitHostPort(r.In.Host)
			if err != nil {
				host = r.In.Host
			}
			target := routes[host]
			if target == nil {
				target = &url.URL{Scheme: "http", Host: "127.0.0.1:1"}
			}
			r.SetURL(target)
			r.Out.Host = r.In.Host // SetURL sends the upstream's own name otherwise
			r.SetXForwarded()
			client, _, _ := net.SplitHostPort(r.In.RemoteAddr)
			r.Out.Header.Set("Forwarded", "for="+client+`;host="`+r.In.Host+`";proto=http`)
			r.Out.Header.Add("Via", "1.1 go")
			r.Out.Header.Set(requestID, newID())
		},
		ModifyResponse: func(answer *http.Response) error {
			answer.Header.Set(requestID, answer.Request.Header.Get(requestID))
			return nil
		},
	}
	if *pooled {
		proxy.BufferPool = &buffers{pool: sync.Pool{New: func() any { return make([]byte, 32*1024) }}}
	}
	server := &http.Server{
		Addr:              "127.0.0.1:" + *port,
		Handler:           proxy,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       75 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}
