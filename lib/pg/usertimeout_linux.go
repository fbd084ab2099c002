package pg

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout bounds how long sent data may stay unacknowledged: keepalive
// probes are not sent while data is in flight, so a load whose server vanished
// in the middle of a COPY would otherwise wait for the kernel's retries
// (a quarter of an hour).
//
// Linux gives up a connection also when its peer answers but takes no data for
// so long. What goes to a source are small queries; a target that is busy in
// the middle of a COPY is healthy, so it gets much more time.
func userTimeout(side Side) func(network, address string, c syscall.RawConn) error {
	d := time.Minute
	if side == Target {
		d = 5 * time.Minute
	}
	return func(network, _ string, c syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		})
	}
}
