package chaos

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// session is a shell command and everything it starts, in a session of its own
// so that all of it can be found, whoever its parent is by now.
type session struct {
	cmd    *exec.Cmd
	stdout string // file
	stderr string
	done   chan struct{} // the shell has ended
}

// start runs a shell command with the tools in its PATH.
func start(t testing.TB, env []string, script string) *session {
	t.Helper()
	dir := t.TempDir()
	s := &session{cmd: exec.Command("sh", "-c", script), stdout: filepath.Join(dir, "stdout"),
		stderr: filepath.Join(dir, "stderr"), done: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Dir = dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for name, w := range map[string]*io.Writer{s.stdout: &s.cmd.Stdout, s.stderr: &s.cmd.Stderr} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		*w = f
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.done) }()
	return s
}

type process struct {
	pid  int
	name string
}

// processes lists what is alive of the session.
func (s *session) processes() (ps []process) { return sessionProcesses(s.cmd.Process.Pid) }

func sessionProcesses(sid int) (ps []process) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue
		}
		// pid (comm) state ppid pgrp session …
		open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
		f := strings.Fields(string(b[shut+1:]))
		if f[0] == "Z" || f[3] != strconv.Itoa(sid) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(d))
		ps = append(ps, process{pid, string(b[open+1 : shut])})
	}
	return ps
}

// pick returns a random live process of that name, 0 if there is none.
func (s *session) pick(name string, n int) int {
	ps := slices.DeleteFunc(s.processes(), func(p process) bool { return p.name != name })
	if len(ps) == 0 {
		return 0
	}
	return ps[n%len(ps)].pid
}

// wait returns when nothing of the session is left. A pipeline that hangs is a
// bug: it is reported and killed.
func (s *session) wait(t testing.TB, most time.Duration) {
	t.Helper()
	deadline := time.Now().Add(most)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		ps := s.processes()
		if len(ps) == 0 {
			<-s.done
			return
		}
		if time.Now().After(deadline) {
			var b strings.Builder
			for _, p := range ps {
				state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.pid))
				fmt.Fprintf(&b, " %d %s (%s)", p.pid, p.name, state)
			}
			s.kill()
			t.Fatalf("still running after %v:%s\n%s", most, b.String(), s.errors())
		}
		time.Sleep(pause)
	}
}

func (s *session) kill() {
	for _, p := range s.processes() {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

func (s *session) errors() string {
	b, _ := os.ReadFile(s.stderr)
	return string(b)
}

func (s *session) output() string {
	b, _ := os.ReadFile(s.stdout)
	return string(b)
}

// status is the shell's exit status; call it after wait.
func (s *session) status() int { return s.cmd.ProcessState.ExitCode() }
