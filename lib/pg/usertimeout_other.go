//go:build !linux

package pg

import "syscall"

// userTimeout needs TCP_USER_TIMEOUT, which only Linux has; elsewhere the
// kernel's retransmission limit applies.
func userTimeout(Side) func(network, address string, c syscall.RawConn) error { return nil }
