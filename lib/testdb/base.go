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
	if reaper, err = reap.StdinPipe(); err != nil {
		return "", err
	}
	if err := reap.Start(); err != nil {
		return "", err
	}
	// Not $TMPDIR: the path of a socket has 103 bytes at most.
	dir, err := os.MkdirTemp("/tmp", "bf-test.")
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(reaper, dir); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // nobody must get through it
})

// reaper is kept here so that the garbage collector does not close it.
var reaper io.WriteCloser
