package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"bf/lib/testdb"

	"golang.org/x/sys/unix"
)

// terminal is a pseudoterminal: what is written to tty is collected.
type terminal struct {
	tty, master *os.File

	mu   sync.Mutex
	seen bytes.Buffer
	over chan struct{}
}

func newTerminal(t *testing.T, columns, lines uint16) *terminal {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("opens a pseudoterminal as Linux does")
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines})
	}
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{over: make(chan struct{}), master: master}
	if term.tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(term.over)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			term.mu.Lock()
			term.seen.Write(b[:n])
			term.mu.Unlock()
			if err != nil { // EIO: nobody has the terminal open any more
				return
			}
		}
	}()
	t.Cleanup(func() { term.tty.Close(); master.Close() })
	return term
}

// text returns all that was written, once the terminal is closed.
func (term *terminal) text(t *testing.T) string {
	t.Helper()
	term.tty.Close()
	select {
	case <-term.over:
	case <-time.After(patience):
		t.Fatal("the terminal is still open")
	}
	return term.seen.String()
}

// until waits for a text.
func (term *terminal) until(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		term.mu.Lock()
		found := strings.Contains(term.seen.String(), want)
		term.mu.Unlock()
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q does not appear", want)
		}
	}
}

const erase = "\r\x1b[K"

// TestLive: alone on a terminal, bf-load redraws one line that never wraps and
// leaves a summing-up behind; two of them print whole lines only.
func TestLive(t *testing.T) {
	in := testdb.Installs(t)[0]
	p := newPair(t, testdb.Pair{Source: in, Target: in})
	p.both(t, readings)
	p.src.Exec(t, `insert into readings select '2020-01-01 00:00+0'::timestamptz + i * interval '1 hour', 1
        from generate_series(0, 24 * 6 - 1) i`)
	p.stage(t, "--until", "2021-01-01")
	recs := lines(p.chunks(t))
	streams := make([]string, len(recs))
	for i, r := range recs {
		streams[i] = p.dump(t, r)
	}
	term := newTerminal(t, 60, 10)
	load := func() (io.WriteCloser, func()) {
		cmd := p.command(t, "bf-load", "--target", p.target)
		cmd.Env = append(cmd.Env, "TERM=xterm")
		cmd.Stderr = term.tty
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return in, func() {
			t.Helper()
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	stdin, end := load()
	io.WriteString(stdin, streams[0])
	term.until(t, erase+"bf-load: 1/6 chunks, ")
	io.WriteString(stdin, streams[1])
	term.until(t, erase+"bf-load: 2/6 chunks, ")
	end()
	term.until(t, "bf-load: 2 loaded, ")

	term2 := newTerminal(t, 60, 10)
	text := term.text(t)
	for _, drawn := range strings.Split(text, erase) {
		line, _, _ := strings.Cut(drawn, "\r\n")
		if n := utf8.RuneCountInString(line); n >= 60 && strings.Contains(line, " chunks, ") {
			t.Errorf("%d characters on a line of 60: %q", n, line)
		}
	}

	term = term2
	a, endA := load()
	b, endB := load()
	for i, w := range []io.Writer{a, b, a, b} { // for longer than it takes to find out who is there
		io.WriteString(w, streams[2+i])
		time.Sleep(400 * time.Millisecond)
	}
	endA()
	endB()
	text = term.text(t)
	if strings.Contains(text, "\x1b") {
		t.Errorf("two at once drew over each other: %q", text)
	}
	for _, line := range lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		if !regexp.MustCompile(`^bf-load: \d/6 public.readings _hyper_1_\d_chunk: 24 rows, .*$`).MatchString(line) {
			t.Errorf("line %q", line)
		}
	}

	// The view of it all leaves the summary behind, as wide as the terminal.
	term = newTerminal(t, 50, 10)
	cmd := p.command(t, "bf-chunks", "--target", p.target, "--watch")
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdout = term.tty
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	text = term.text(t)
	screen := onScreen(text)
	if !strings.Contains(screen, "pending failed") || strings.Count(screen, " 6/6 ") != 2 {
		t.Errorf("what is left: %q of %q", screen, text)
	}
	for _, line := range lines(screen) {
		if utf8.RuneCountInString(line) > 50 {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
}
