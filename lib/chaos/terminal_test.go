package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is an interactive shell on a terminal of its own, with job control,
// as people have it.
type terminal struct {
	t      testing.TB
	master *os.File
	shell  *exec.Cmd

	mu  sync.Mutex
	out bytes.Buffer
}

const prompt = "~ready~ "

func openTerminal(t testing.TB, env []string) *terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	// Not to block: only then does closing it end the reading of it, and the terminal.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("needs pseudo terminals: ", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	tt := &terminal{t: t, master: master, shell: exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")}
	tt.shell.Stdin, tt.shell.Stdout, tt.shell.Stderr = slave, slave, slave
	tt.shell.Env = append(append(os.Environ(), env...), "PS1="+prompt, "TERM=dumb", "HISTFILE=")
	tt.shell.Dir = t.TempDir()
	tt.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := tt.shell.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			tt.mu.Lock()
			tt.out.Write(buf[:n])
			tt.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		master.Close()
		for _, p := range tt.processes() {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
		tt.shell.Wait()
	})
	tt.prompts(1)
	return tt
}

func (tt *terminal) screen() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return tt.out.String()
}

// prompts waits for the n-th prompt.
func (tt *terminal) prompts(n int) {
	tt.t.Helper()
	defer func() {
		if tt.t.Failed() {
			tt.t.Logf("screen:\n%s", tt.screen())
		}
	}()
	within(tt.t, 20*time.Second, fmt.Sprintf("prompt %d is there", n), func() bool {
		return strings.Count(tt.screen(), prompt) >= n
	})
}

// typed types something.
func (tt *terminal) typed(s string) {
	tt.t.Helper()
	if _, err := tt.master.WriteString(s); err != nil {
		tt.t.Fatal(err)
	}
}

// run types a command that ends by itself and returns what it printed.
func (tt *terminal) run(command string) string {
	tt.t.Helper()
	before := tt.screen()
	tt.typed(command + "\n")
	tt.prompts(strings.Count(before, prompt) + 1)
	_, out, _ := strings.Cut(strings.TrimPrefix(tt.screen(), before), "\n")
	return strings.TrimSpace(strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(out, prompt), "\n"), "\r", ""))
}

func (tt *terminal) processes() (ps []process) { return sessionProcesses(tt.shell.Process.Pid) }

// tools lists what is at work besides the shell.
func (tt *terminal) tools() (names []string) {
	for _, p := range tt.processes() {
		if p.pid != tt.shell.Process.Pid {
			names = append(names, p.name)
		}
	}
	return names
}
