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
	w, err := lifeline(reap)
	if err != nil {
		return "", err
	}
	if err := reap.Start(); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(room(), "bf-test.")
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(w, dir); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // nobody must get through it
})

// lifelines are the writing ends of such pipes, kept from the garbage collector.
var lifelines []io.WriteCloser

// lifeline gives a command a stdin that ends with this process, and a session
// of its own, which is deaf to ^C on the terminal.
func lifeline(cmd *exec.Cmd) (io.Writer, error) {
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	lifelines = append(lifelines, w)
	return w, nil
}

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
