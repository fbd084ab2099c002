package testdb

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// base is the directory of all that this process makes: servers and programs.
// Another process, "scripts/testbed reap", reads from a pipe that the kernel
// closes when this one is gone, however it went; then it stops the servers and
// removes the directory.
var base = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	reap := exec.Command(filepath.Join(root, "scripts", "testbed"), "reap")
	reap.Dir = "/"
	reap.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // deaf to ^C on the terminal
	if alive, err = reap.StdinPipe(); err != nil {
		return "", err
	}
	if err := reap.Start(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(room(), "bf-test.")
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(alive, dir); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // nobody must get through it
})

// alive is the pipe; kept here so that the garbage collector does not close it.
var alive io.WriteCloser

// room is where servers live: in memory if there is enough, as a database is
// some 900 files, which takes ten times as long on many a disk. Never $TMPDIR:
// the path of a socket has 103 bytes at most.
func room() string {
	const shm, enough = "/dev/shm", 4 << 30
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shm, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < enough {
		return "/tmp"
	}
	return shm
}
