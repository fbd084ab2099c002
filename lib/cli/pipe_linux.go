package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize holds a few frames of a stream: with the 64 KiB that a pipe has by
// itself, each frame makes writer and reader wait for each other several times.
// A larger one only leaves the processor's cache.
const pipeSize = 1 << 20

// WidenPipe makes f hold more if it is a pipe and the system allows it.
func WidenPipe(f any) {
	if file, ok := f.(*os.File); ok {
		_, _ = unix.FcntlInt(file.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
}
