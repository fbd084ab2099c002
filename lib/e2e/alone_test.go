package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// TestTerminalGone: a backfill that was told to go on (nohup) does so when its
// terminal goes away, to its end.
func TestTerminalGone(t *testing.T) {
	p := newPair(t, newest(t))
	p.metrics(t)
	release := p.stall(t)
	p.dst.Exec(t, "alter function hold set lock_timeout = 0")
	term := newTerminal(t, 80, 20)
	cmd := p.script(t, "backfill", "--until", "2016-01-02", "-p", "2")
	cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`}, cmd.Args...)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = sh
	term.onTerminal(t, cmd)
	term.shows(t, `(?m)^copy  \[`)
	eventually(t, p.dst, "select least(1, n) from ("+waiting+") w (n)", 1)
	term.tty.Close()
	term.master.Close()
	time.Sleep(time.Second)
	release()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	eventually(t, p.dst, "select count(verified) from __backfill.task", 8)
	p.same(t, "select * from metrics")
}

// session is an interactive shell in which somebody starts a backfill whose loads
// wait in the middle of a chunk, and which then ends without being told.
type session struct {
	*pair
	dir     string // where the shell is, and its home
	shell   *exec.Cmd
	term    *terminal
	release func() // the loads
}

// newSession prepares one; the shell is still to be started.
func newSession(t *testing.T) *session {
	t.Helper()
	p := newPair(t, newest(t))
	p.metrics(t)
	s := &session{pair: p, dir: t.TempDir(), release: p.stall(t)}
	p.dst.Exec(t, "alter function hold set lock_timeout = 0")
	// As installed, all commands in one directory: a service has no PATH of its user's.
	bin := installed(t)
	for name := range tools(t) {
		if name != "bf-backfill" {
			if err := os.Symlink(filepath.Join(testdb.Bin(t), name), filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.shell = p.command(t, "bash", "--norc", "--noprofile", "-i")
	path := "PATH=" + bin + ":" + os.Getenv("PATH")
	s.shell.Dir = s.dir
	s.shell.Env = append(s.shell.Env, path, "BF_SOURCE="+p.source, "BF_TARGET="+p.target, "HOME="+s.dir,
		"TMUX_TMPDIR="+t.TempDir(), "TMUX=", "SHELL=/bin/sh")
	// The shell in tmux is a login shell.
	if err := os.WriteFile(s.dir+"/.profile", []byte(path+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// far has the shell run at the other end of a connection.
func (s *session) far(t *testing.T) {
	t.Helper()
	ours := slices.IndexFunc(s.shell.Env, func(kv string) bool { return strings.HasPrefix(kv, "SOURCE=") })
	line := "cd " + s.dir + " && exec env"
	for _, kv := range s.shell.Env[ours:] {
		line += " '" + kv + "'"
	}
	ssh := append(strings.Fields(testdb.SSH(t)), "-tt", line+" bash --norc --noprofile -i")
	s.shell = s.command(t, ssh[0], ssh[1:]...)
}

// asUser has the shell run where a systemd of the user's is, of the test's own: one
// that has the machine to itself, as it sees it.
func (s *session) asUser(t *testing.T) {
	t.Helper()
	const manager = "/lib/systemd/systemd"
	for _, program := range []string{manager, "systemd-run", "unshare", "setsid"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ", program)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root starts a systemd of its own")
	}
	env := s.shell.Env
	s.shell = s.command(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", `
		mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0 || exit
		export XDG_RUNTIME_DIR=/run/user/0
		setsid sh -c 'echo $$ >manager; exec env -i PATH=/usr/bin:/bin XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR "$@"' \
			sh `+manager+` --user --unit=basic.target </dev/null >log 2>&1 &
		answer='it does not'
		for i in $(seq 100); do
			if systemd-run --user --wait --quiet true >>log 2>&1; then answer='it works'; break; fi
			sleep .1
		done
		echo "$answer"
		exec bash --norc --noprofile -i`)
	s.shell.Dir, s.shell.Env = s.dir, env
	t.Cleanup(func() {
		b, _ := os.ReadFile(s.dir + "/manager")
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	})
}

func (s *session) open(t *testing.T) {
	t.Helper()
	s.term = newTerminal(t, 80, 20)
	s.term.onTerminal(t, s.shell)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("screen:\n%s", s.term.screen())
		}
	})
}

// typed types lines, the next one when the screen shows that it is expected.
func (s *session) typed(t *testing.T, lines []string, then string) {
	t.Helper()
	for i, l := range lines {
		if i > 0 && then != "" {
			s.term.until(t, then)
		}
		s.term.master.WriteString(l + "\n")
	}
}

// lose loses the terminal, or the connection, while a chunk is in hand.
func (s *session) lose(t *testing.T) {
	t.Helper()
	eventually(t, s.dst, "select least(1, n) from ("+waiting+") w (n)", 1)
	if strings.HasSuffix(s.shell.Path, "ssh") {
		_ = s.shell.Process.Kill()
	}
	s.term.tty.Close()
	s.term.master.Close()
	time.Sleep(time.Second)
	_ = s.shell.Process.Kill() // should it ignore HUP, as under nohup
	_ = s.shell.Wait()
}

// TestLeftAlone: what the manual says of how to start a backfill that goes on without
// its terminal, on this host and in a session of ssh.
func TestLeftAlone(t *testing.T) {
	var recipes []string
	for _, p := range pages(t) {
		if p.name == "bf-backfill" {
			recipes = lines(p.part("Ss", "Leaving it alone"))
		}
	}
	for _, c := range []struct {
		tool, more string
		lines      int
		then       string
		within     func(*session, *testing.T)
	}{
		{"nohup", "", 1, "", nil},
		{"nohup", ", ssh", 1, "", (*session).far},
		{"tmux", "", 2, "[backfill", nil},
		{"tmux", ", ssh", 2, "[backfill", (*session).far},
		{"systemd-run", "", 2, "", (*session).asUser},
	} {
		t.Run(c.tool+c.more, func(t *testing.T) {
			if _, err := exec.LookPath(c.tool); err != nil {
				t.Skip("needs ", c.tool)
			}
			s := newSession(t)
			if c.tool == "tmux" {
				end, env := exec.Command("tmux", "kill-server"), s.shell.Env
				t.Cleanup(func() { end.Env = env; _ = end.Run() })
			}
			if c.within != nil {
				c.within(s, t)
			}
			s.open(t)
			if c.tool == "systemd-run" {
				if !strings.Contains(s.term.shows(t, `(?m)^it (works|does not)$`), "works") {
					log, _ := os.ReadFile(s.dir + "/log")
					t.Skipf("systemd does not work here: %s", log)
				}
			}
			i := slices.IndexFunc(recipes, func(l string) bool { return strings.HasPrefix(l, c.tool+" ") })
			typed := slices.Clone(recipes[i : i+c.lines])
			for i, l := range typed {
				typed[i] = strings.ReplaceAll(l, `\e`, `\`)
			}
			s.typed(t, typed, c.then)
			s.lose(t)
			s.release()
			eventually(t, s.dst, "select count(verified) from __backfill.task", 8)
			eventually(t, s.dst, ours, 0)
			s.same(t, "select * from metrics")
		})
	}
}

// TestConnectionLost: what was not told to go on finishes the chunks in hand when the
// session of ssh in which it was started is lost, and does the rest when it is run again.
// What has a session of its own has not lost anything.
func TestConnectionLost(t *testing.T) {
	for _, c := range []struct {
		line   string
		goesOn bool
	}{{"bf-backfill --until 2016-01-02T00:00:00Z -p 2", false},
		{"setsid bf-backfill --until 2016-01-02T00:00:00Z -p 2", true}} {
		t.Run(c.line, func(t *testing.T) {
			s := newSession(t)
			s.far(t)
			s.open(t)
			s.typed(t, []string{c.line}, "")
			s.lose(t)
			s.release()
			if c.goesOn {
				eventually(t, s.dst, "select count(verified) from __backfill.task", 8)
			}
			eventually(t, s.dst, ours, 0)
			var done, equal int
			s.dst.Query1(t, &done, worked)
			s.dst.Query1(t, &equal, "select count(verified) from __backfill.task")
			if c.goesOn && equal != 8 || !c.goesOn && (done < 1 || done > 2 || equal > 0) {
				t.Errorf("%d of 8 chunks copied, %d verified", done, equal)
			}
			wantOutput(t, s.script(t, "backfill", "--until", "2016-01-02", "-p", "2"), 0)
			s.same(t, "select * from metrics")
		})
	}
}
