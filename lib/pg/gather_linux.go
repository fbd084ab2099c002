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

// gather leaves the socket alone while the server sends on. By the kernel's
// clock: the runtime's timers are several times as coarse, and would fill the
// buffers of a local socket, so that the server waits for us.
func gather() {
	_ = unix.Nanosleep(&unix.Timespec{Nsec: 300_000}, nil)
}
