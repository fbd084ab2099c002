package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// ReaderGone returns a channel that is closed when nobody reads the pipe w any more. A
// tool that waits and writes nothing would not notice that the rest of its pipeline has
// died.
func ReaderGone(w any) <-chan struct{} {
	gone := make(chan struct{})
	if f, ok := w.(*os.File); ok {
		go func() {
			fds := []unix.PollFd{{Fd: int32(f.Fd())}} // errors and hang-ups only
			for {
				n, err := unix.Poll(fds, -1)
				switch {
				case err == unix.EINTR || err == unix.EAGAIN:
				case err != nil || n == 0 || fds[0].Revents&unix.POLLNVAL != 0:
					return
				default:
					close(gone)
					return
				}
			}
		}()
	}
	return gone
}
