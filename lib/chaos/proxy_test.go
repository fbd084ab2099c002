package chaos

import (
	"fmt"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"bf/lib/testdb"
)

// proxy stands between the tools and a server and does to connections what
// networks do. It listens on TCP and forwards to the server's socket, or to its
// port where it has one.
type proxy struct {
	l           net.Listener
	network, to string

	mu    sync.Mutex
	free  sync.Cond // signalled when a stall is over
	stall bool
	flip  int // a bit is flipped after so many bytes, of all connections; 0 for never
	conns map[net.Conn]bool
}

func newProxy(t testing.TB, d *testdb.DB) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(d.ConnString)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, network: "unix", to: u.Query().Get("host") + "/.s.PGSQL.5432", conns: map[net.Conn]bool{}}
	mode := "disable"
	if u.Port() != "" {
		p.network, p.to, mode = "tcp", u.Host, "require"
	}
	p.free.L = &p.mu
	go p.serve()
	t.Cleanup(func() {
		l.Close()
		p.setStall(false)
		p.cut(-1)
	})
	return p, fmt.Sprintf("postgres://postgres@%s/%s?sslmode=%s", l.Addr(), d.Name, mode)
}

func (p *proxy) serve() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		go func() {
			s, err := net.Dial(p.network, p.to)
			if err != nil { // the server is down
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
				return
			}
			p.mu.Lock()
			p.conns[c], p.conns[s] = true, true
			p.mu.Unlock()
			go p.pump(c, s)
			p.pump(s, c)
		}()
	}
}

// pump forwards one direction; the end of one is the end of both.
func (p *proxy) pump(to, from net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.stall {
			p.free.Wait()
		}
		if p.flip > n {
			p.flip -= n
		} else if p.flip > 0 {
			buf[p.flip-1] ^= 1 << (p.flip % 8)
			p.flip = 0
		}
		p.mu.Unlock()
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	p.mu.Lock()
	delete(p.conns, to)
	delete(p.conns, from)
	p.mu.Unlock()
	to.Close()
	from.Close()
}

// cut ends n connections in their middle (all for -1), with a reset rather
// than an orderly end; it returns how many there were.
func (p *proxy) cut(n int) (cut int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns { // in random order
		if cut == n {
			break
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
			tcp.Close()
			cut++
		}
	}
	return cut
}

// corrupt flips a bit of what passes, after so many bytes; it returns whether
// the one before is still to come.
func (p *proxy) corrupt(after int) (waiting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting = p.flip > 0
	p.flip = after
	return waiting
}

// setStall makes the network swallow everything, or go on.
func (p *proxy) setStall(on bool) {
	p.mu.Lock()
	p.stall = on
	p.mu.Unlock()
	p.free.Broadcast()
}

func (p *proxy) stallFor(d time.Duration) {
	p.setStall(true)
	time.Sleep(d)
	p.setStall(false)
}
