package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"bf/lib/testdb"

	"golang.org/x/sys/unix"
)

// onScreen is what a terminal shows after that was written to it: it knows the
// control sequences that bf uses, and fails on others by showing them.
func onScreen(written string) string {
	rows, y, x := [][]rune{nil}, 0, 0
	for written != "" {
		r, n := utf8.DecodeRuneInString(written)
		switch {
		case strings.HasPrefix(written, "\x1b[A"):
			y, n = max(y-1, 0), 3
		case strings.HasPrefix(written, "\x1b[K"):
			rows[y], n = rows[y][:min(x, len(rows[y]))], 3
		case r == '\r':
			x = 0
		case r == '\n':
			if y++; y == len(rows) {
				rows = append(rows, nil)
			}
		default:
			for len(rows[y]) <= x {
				rows[y] = append(rows[y], ' ')
			}
			rows[y][x] = r
			x++
		}
		written = written[n:]
	}
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(strings.TrimRight(string(r), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// screen is what the terminal shows now.
func (term *terminal) screen() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return onScreen(term.seen.String())
}

// left is what the terminal shows when all have ended.
func (term *terminal) left(t *testing.T) string {
	t.Helper()
	return onScreen(term.text(t))
}

// shows waits until the screen matches, and returns it.
func (term *terminal) shows(t *testing.T, expression string) string {
	t.Helper()
	re := regexp.MustCompile(expression)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		s := term.screen()
		if re.MatchString(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not match the screen:\n%s", expression, s)
		}
	}
}

func (term *terminal) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	size := &unix.Winsize{Col: columns, Row: rows}
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
}

// onTerminal starts a command that has the terminal for itself: one that can redraw,
// unless env says something else.
func (term *terminal) onTerminal(t *testing.T, cmd *exec.Cmd, env ...string) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.tty, term.tty, term.tty
	cmd.Env = append(append(cmd.Env, "TERM=xterm"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// TestView: a backfill on a terminal shows one block, from its start to its end.
func TestView(t *testing.T) {
	p := newPair(t, newest(t))
	p.metrics(t)
	p.both(t, "create table weather (like metrics including all)")
	p.both(t, "select create_hypertable('weather', 'time', chunk_time_interval => interval '1 day')")
	p.both(t, "create table empty (like metrics including all); select create_hypertable('empty', 'time')")
	p.src.Exec(t, "insert into weather select * from metrics; insert into empty select * from metrics limit 1")
	p.dst.Exec(t, "alter table metrics add constraint late check (time < '2015-12-28Z' or time >= '2015-12-29Z')")
	release := p.stall(t)
	p.dst.Exec(t, "alter function hold set lock_timeout = 0") // wait for as long as it takes
	term := newTerminal(t, 90, 20)
	cmd := p.script(t, "backfill", "--until", "2016-01-02", "-p", "2")
	term.onTerminal(t, cmd)

	before := term.shows(t, `(?m)^copy  \[#*\.+\] +\d+%  .*
   public.empty +[01]/1 chunks  .*
   public.metrics +0/8 chunks  .*
   public.weather +\d/8 chunks  .*
 > public.metrics _hyper_1_\d+_chunk  .* \d+s
 > public.metrics _hyper_1_\d+_chunk  .* \d+s
$`)

	fitsResized(t, term)
	goneWhileStopped(t, term, cmd)

	// One chunk fails, the others are copied, and all of it is told above.
	release()
	term.shows(t, `chunks not copied: 1; those that failed:`)
	cmd.Wait()
	s := term.left(t)
	for _, want := range []string{`(?m)^bf-load: target: .*violates check constraint "late".*$`,
		`(?m)^bf-backfill: public.weather: all of it copied, 8 chunks, `,
		`(?m)^bf-backfill: 16 chunks copied, \S+ .B in `,
		`(?m)^  task \d+, chunk _timescaledb_internal._hyper_1_4_chunk$`} {
		if !regexp.MustCompile(want).MatchString(s) {
			t.Errorf("%s does not match what is left:\n%s", want, s)
		}
	}
	messages := slices.DeleteFunc(picture(t, "bf-backfill", "What it shows"), func(l string) bool {
		return !strings.HasPrefix(l, "bf-") // package view knows the others
	})
	shown(t, messages, before+s) // an emulator that does not wrap lines again loses what is above them
	status := cmd.ProcessState.ExitCode()
	if status != 1 || regexp.MustCompile(`copy  \[|/17 public|\x1b`).MatchString(s) {
		t.Errorf("exit status %d, left:\n%s", status, s)
	}

	// ^C in the middle.
	p.dst.Exec(t, "alter table metrics drop constraint late; select pg_advisory_lock(7)")
	term = newTerminal(t, 90, 20)
	cmd = p.script(t, "backfill", "--until", "2016-01-02", "-p", "2")
	term.onTerminal(t, cmd)
	term.shows(t, `(?m)^copy  \[#+\.*\]  \d\d%`)
	eventually(t, p.dst, waiting, 1)
	term.master.WriteString("\x03")
	term.shows(t, `(?m)^backfill: stopping when the chunks in hand are done.*\ncopy  \[`)
	release()
	cmd.Wait()
	s, status = term.left(t), cmd.ProcessState.ExitCode()
	if status != 130 || !strings.HasSuffix(s, "backfill: stopped; run it again to go on\n") {
		t.Errorf("exit status %d, left:\n%s", status, s)
	}

	// The rest: through all phases to the summary.
	term = newTerminal(t, 90, 20)
	cmd = p.script(t, "backfill", "--until", "2016-01-02", "-p", "2")
	term.onTerminal(t, cmd)
	cmd.Wait()
	s = term.left(t)
	for _, want := range []string{`(?m)^backfill: all 17 chunks are copied and verified$`,
		`(?m)^bf-backfill: 17 chunks found equal, `, `(?m)^total +17/17 `} {
		if !regexp.MustCompile(want).MatchString(s) {
			t.Errorf("%s does not match what is left:\n%s", want, s)
		}
	}
	if cmd.ProcessState.ExitCode() != 0 || strings.Contains(s, "verify  [") {
		t.Errorf("exit status %d, left:\n%s", cmd.ProcessState.ExitCode(), s)
	}
}

// fitsResized resizes the terminal: narrower, and wide again. The block is there once, and
// its lines fit. A narrow one has no room for the bar if more than a minute is left.
func fitsResized(t *testing.T, term *terminal) {
	t.Helper()
	for _, columns := range []int{44, 30, 90} {
		term.resize(t, uint16(columns), 20)
		time.Sleep(time.Second)
		s := term.shows(t, `(?m)^copy  `)
		_, block, _ := strings.Cut("\n"+s, "\ncopy  ")
		for _, l := range lines("copy  " + block) {
			if n := utf8.RuneCountInString(l); n >= columns {
				t.Errorf("%d characters on a line of %d: %q", n, columns, l)
			}
		}
		if n := strings.Count(s, "copy  "); n != 1 {
			t.Errorf("%d blocks on the screen after it was resized to %d:\n%s", n, columns, s)
		}
	}
}

// goneWhileStopped types ^Z: a clean line for the shell. After fg the block is back.
func goneWhileStopped(t *testing.T, term *terminal, cmd *exec.Cmd) {
	t.Helper()
	term.master.WriteString("\x1a")
	for deadline := time.Now().Add(20 * time.Second); strings.Contains(term.screen(), "copy  ["); {
		if time.Sleep(50 * time.Millisecond); time.Now().After(deadline) {
			t.Fatalf("the block is not gone:\n%s\n%q", term.screen(), term.seen.String())
		}
	}
	stopped(t, cmd.Process.Pid)
	syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
	term.shows(t, `(?m)^copy  \[`)
}

// stopped waits until bf-backfill and its view are, which stop themselves. A shell has
// seen that before anybody can type fg; a CONT that comes earlier is lost.
func stopped(t *testing.T, group int) {
	t.Helper()
	members := regexp.MustCompile(fmt.Sprintf(`(?m)^(?:%[1]d \(.*|\d+ \(bf-chunks)\) (\w) \d+ %[1]d `, group))
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		states := ""
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range stats {
			b, _ := os.ReadFile(f)
			if m := members.FindSubmatch(b); m != nil {
				states += string(m[1])
			}
		}
		if states == "TT" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("bf-backfill and its view do not stop: %s", states)
		}
	}
}

// TestViewPlain: where nothing can be redrawn there are lines; -v has one for each
// chunk, also in bf-verify's part. A terminal never gets colours, as NO_COLOR asks.
func TestViewPlain(t *testing.T) {
	p := newPair(t, newest(t))
	p.metrics(t)
	chunk := regexp.MustCompile(`(?m)^bf-\w+: \d/8 public.metrics _hyper_`)
	for _, c := range []struct {
		name, env string // of a terminal; "" for none
		args      []string
		chunks    int // lines for chunks
	}{{"a file", "", nil, 0}, {"a file, -v", "", []string{"-v"}, 16}, {"TERM=dumb", "TERM=dumb", nil, 0},
		{"TERM=dumb, -v", "TERM=dumb", []string{"-v"}, 16}, {"no TERM", "TERM=", nil, 0},
		{"NO_COLOR", "NO_COLOR=1", nil, 0}} {
		p.dst.Exec(t, "drop schema if exists __backfill cascade")
		cmd := p.script(t, "backfill", append(c.args, "--until", "2016-01-02", "-p", "2")...)
		var text string
		if c.env == "" {
			text, _ = output(t, cmd)
		} else {
			term := newTerminal(t, 80, 20)
			term.onTerminal(t, cmd, c.env)
			cmd.Wait()
			text = term.text(t)
		}
		redraws := c.env == "NO_COLOR=1"
		if status := cmd.ProcessState.ExitCode(); status != 0 || strings.Contains(text, "\x1b") != redraws ||
			regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(text) {
			t.Errorf("%s: exit status %d\n%q", c.name, status, text)
		}
		if c.env != "" {
			text = onScreen(text)
		}
		if n := len(chunk.FindAllString(text, -1)); n != c.chunks {
			t.Errorf("%s: %d lines for chunks, want %d\n%s", c.name, n, c.chunks, text)
		}
		for _, want := range []string{`(?m)^bf-backfill: public.metrics: all of it copied, 8 chunks, `,
			`(?m)^bf-backfill: 8 chunks found equal, `, `(?m)^backfill: all 8 chunks are copied and verified$`} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("%s: %s does not match\n%s", c.name, want, text)
			}
		}
	}
}

// TestWatchMany: the view of a backfill of 200 hypertables that runs elsewhere fits
// on a small terminal, and ends when it is told to.
func TestWatchMany(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.metrics(t)
	p.stage(t, "--until", "2016-01-02")
	p.dst.Exec(t, `insert into __backfill.task (chunk_schema, chunk_name, hypertable_schema, hypertable_name,
			dimensions, filter, est_bytes, worked)
		select 'public', 'chunk_' || n, 'public', 'table_' || n % 200, '[]',
			'{}', 1000000, case when n % 3 = 0 then tstzrange(now(), now(), '[]') end
		from generate_series(1, 4000) n`)
	term := newTerminal(t, 70, 16)
	cmd := p.command(t, "bf-chunks", "--target", p.target, "--watch", "--every", "0.2")
	term.onTerminal(t, cmd)
	s := term.shows(t, `(?m)^copy  \[#+\.+\]  33%.*\n`+
		`(   public.table_\d+ +\d+/20 chunks  .*\n)+   … 190 more +\d+/\d+ chunks `)
	if n := len(lines(s)); n > 16 {
		t.Errorf("%d lines on a terminal of 16:\n%s", n, s)
	}
	p.dst.Exec(t, "update __backfill.task set failed = now(), copy_message = 'no luck' where chunk_name = 'chunk_7'")
	term.shows(t, `(?m)^bf-chunks: failed: public.table_7 chunk_7: no luck\ncopy  \[(.*\n)+`+
		`   public.table_7 .* 1 failed `)
	term.master.WriteString("\x03")
	cmd.Wait()
	s, status := term.left(t), cmd.ProcessState.ExitCode()
	if status != 130 || strings.Contains(s, "copy  [") || !strings.Contains(s, " 1333/4008 ") {
		t.Errorf("exit status %d, left:\n%s", status, fmt.Sprintf("%.2000s", s))
	}
}

// TestViewReflows: nothing of the view is left behind in tmux, which wraps lines again
// when its window changes, and keeps what is cleared.
func TestViewReflows(t *testing.T) {
	path, err := exec.LookPath("tmux")
	if err != nil {
		t.Skip("needs tmux")
	}
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.metrics(t)
	p.stage(t, "--until", "2016-01-02")
	p.dst.Exec(t, `insert into __backfill.task (chunk_schema, chunk_name, hypertable_schema, hypertable_name,
			dimensions, filter, est_bytes)
		select 'public', 'chunk_' || n, 'public', 'table_' || n, '[]', '{}', 1000000
		from generate_series(1, 20) n`)
	socket := filepath.Join(t.TempDir(), "tmux")
	tmux := func(args ...string) string {
		t.Helper()
		cmd := p.command(t, path, append([]string{"-S", socket, "-f", "/dev/null"}, args...)...)
		cmd.Env = append(cmd.Env, "BF_TARGET="+p.target, "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-x", "70", "-y", "14", "bf-chunks --watch --every 0.2; sleep 600")
	t.Cleanup(func() { tmux("kill-server") })
	all := func(history ...string) string { return tmux(append([]string{"capture-pane", "-p"}, history...)...) }
	// What is wrapped when it gets narrower goes to the history, out of reach.
	for i, size := range [][2]string{{"70", "14"}, {"100", "30"}, {"100", "14"}, {"44", "14"}, {"100", "14"}} {
		tmux("resize-window", "-x", size[0], "-y", size[1])
		time.Sleep(time.Second)
		var s string
		for range 100 {
			if s = all(); i < 3 {
				s = all("-S", "-")
			}
			if strings.Contains(s, "copy  ") {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(s, "copy  "); n != 1 || !strings.Contains(s, "… ") {
			t.Errorf("%d blocks at %s:\n%s", n, size, s)
		}
	}
	tmux("send-keys", "C-c")
	for range 100 {
		if strings.Contains(all(), "at work") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if s := all(); strings.Contains(s, "copy  ") || !strings.Contains(s, "at work") {
		t.Errorf("in the end:\n%s", s)
	}
}
