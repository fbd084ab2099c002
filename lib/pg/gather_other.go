//go:build !linux

package pg

import "net"

// gathers says no: waiting for less than a timer's tick is measured on Linux
// only.
func gathers(net.Conn) bool { return false }

func gather() {}
