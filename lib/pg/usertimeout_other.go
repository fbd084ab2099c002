//go:build !linux

package pg

import (
	"syscall"
	"time"
)

// setUserTimeout needs TCP_USER_TIMEOUT, which only Linux has; elsewhere the
// kernel's retransmission limit applies.
func setUserTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
