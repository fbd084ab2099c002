package pg

import (
	"crypto/tls"
	"net"

	"golang.org/x/sys/unix"
)

// gathers reports whether a short read means that the socket is empty. With TLS
// it means the end of a record.
func gathers(c net.Conn) bool {
	_, encrypted := c.(*tls.Conn)
	return !encrypted
}

// gather waits for a moment, so that more data arrives before the next read. It
// sleeps by the kernel's clock: Go's timers are several times as coarse, and the
// buffers of a local socket would fill up and make the server wait.
func gather() {
	_ = unix.Nanosleep(&unix.Timespec{Nsec: 300_000}, nil)
}
