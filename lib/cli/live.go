package cli

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"golang.org/x/text/width"
)

// Live is a line, or a block of lines, at the bottom of the terminal that is drawn
// again and again; messages of the Log scroll by above it. Only one process per
// terminal may show one. It uses no colours, so NO_COLOR has nothing to turn off.
type Live struct {
	log   *Log
	lines func(columns, rows int) []string

	mu   sync.Mutex
	end  chan struct{} // of the one that is shown, nil for none
	over sync.WaitGroup
}

// Live returns the live line of a command, hidden at first. text is called several
// times a second. It returns nil, whose methods do nothing, with --quiet, or if
// stderr is not a terminal that can redraw a line.
func (l *Log) Live(text func() string) *Live {
	return l.Block(func(int, int) []string { return []string{l.name + ": " + text()} })
}

// Block is Live for several lines: lines returns those for a terminal of that many
// columns and rows. What is longer than a row is cut.
func (l *Log) Block(lines func(columns, rows int) []string) *Live {
	if l.quiet || !Redraws(l.w) {
		return nil
	}
	return &Live{log: l, lines: lines}
}

// Redraws reports whether w is a terminal on which lines can be drawn again.
func Redraws(w any) bool {
	return IsTerminal(w) && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// Shown reports whether the line is shown.
func (v *Live) Shown() bool {
	if v == nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.end != nil
}

const redraw = 200 * time.Millisecond

// Show shows the line or hides it.
func (v *Live) Show(on bool) {
	if v == nil || v.Shown() == on {
		return
	}
	if !on {
		v.mu.Lock()
		close(v.end)
		v.end = nil
		v.mu.Unlock()
		v.over.Wait()
		v.log.draw(nil)
		return
	}
	end := make(chan struct{})
	v.mu.Lock()
	v.end = end
	v.mu.Unlock()
	v.over.Go(func() { v.keep(end) })
}

// keep draws until end is closed. A ^Z finds a clean line: nothing is left of what
// was drawn for the shell's prompt to stand in, and it comes back with fg.
func (v *Live) keep(end <-chan struct{}) {
	suspended, continued := make(chan os.Signal, 1), make(chan os.Signal, 1)
	if !signal.Ignored(unix.SIGTSTP) {
		signal.Notify(suspended, unix.SIGTSTP)
		defer signal.Stop(suspended)
	}
	signal.Notify(continued, unix.SIGCONT)
	defer signal.Stop(continued)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	for {
		columns, rows := Size(v.log.w)
		v.log.draw(v.lines(columns, rows))
		select {
		case <-time.After(redraw):
		case <-resized:
		case <-suspended:
			v.log.draw(nil)
			for len(continued) > 0 {
				<-continued
			}
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			<-continued // it stops a moment later only
		case <-end:
			return
		}
	}
}

const eraseLine = "\r\x1b[K"

// drawn is what stands at the bottom of the terminal. The cursor is at its end.
type drawn struct {
	lines   []string
	columns int // of the terminal then
}

// erase moves the cursor to the start of what is drawn and clears all from there, row
// by row: what is cleared at once from the top of the screen goes to the history of
// tmux, and comes back with it. A terminal that has become narrower since has wrapped
// the lines.
func (d *drawn) erase(columns int) string {
	if len(d.lines) == 0 {
		return ""
	}
	up := len(d.lines) - 1
	if columns > 0 && columns < d.columns {
		for _, l := range d.lines {
			up += max(Width(l)-1, 0) / columns
		}
	}
	return eraseLine + strings.Repeat("\x1b[A"+eraseLine, up)
}

// draw replaces what is drawn; nil erases it.
func (l *Log) draw(lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	columns, _ := Size(l.w)
	for i, s := range lines {
		if s = printable(s); columns > 0 {
			s = Cut(s, columns-1) // leave room for the cursor
		}
		lines[i] = s
	}
	if len(lines)+len(l.live.lines) == 0 || columns == l.live.columns && slices.Equal(lines, l.live.lines) {
		return
	}
	before := l.live.erase(columns)
	if before == "" {
		before = eraseLine // what a shell or a key has left there
	}
	io.WriteString(l.w, before+strings.Join(lines, "\n"))
	l.live = drawn{lines, columns}
}

// above puts a text above what is drawn.
func (l *Log) above(s string) string {
	columns, _ := Size(l.w)
	return l.live.erase(columns) + s + strings.Join(l.live.lines, "\n")
}

// Beside returns a writer to w that first erases the live line if w is the
// terminal that shows it.
func (l *Log) Beside(w io.Writer) io.Writer { return beside{l, w} }

type beside struct {
	l *Log
	w io.Writer
}

func (b beside) Write(p []byte) (int, error) {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	if IsTerminal(b.w) {
		columns, _ := Size(b.l.w)
		io.WriteString(b.l.w, b.l.live.erase(columns))
		b.l.live = drawn{}
	}
	return b.w.Write(p)
}

// Size returns columns and lines of the terminal, 0 when w is none.
func Size(w any) (columns, lines int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(s.Col), int(s.Row)
}

// Width is how many columns a text takes on a terminal: names may be of letters that
// take two, or none.
func Width(s string) (n int) {
	for _, r := range s {
		n += columns(r)
	}
	return n
}

func columns(r rune) int {
	switch k := width.LookupRune(r).Kind(); {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case k == width.EastAsianWide || k == width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Cut shortens a text to at most that many columns.
func Cut(s string, most int) string {
	if Width(s) <= most {
		return s
	}
	n := 0
	for i, r := range s {
		if n += columns(r); n > most-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// Duration formats a time for people: 8s, 3m20s, 5h12m, 2d3h.
func Duration(seconds float64) string {
	s := int64(seconds + 0.5)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// Share formats how much of a size is done, in one unit if possible: 1.2/4.0 GB.
func Share(part, whole int64) string {
	a, b := Bytes(part), Bytes(whole)
	if n, unit, _ := strings.Cut(a, " "); strings.HasSuffix(b, " "+unit) {
		a = n
	}
	return a + "/" + b
}

// Progress is how much of a run is done.
type Progress struct {
	Chunks, ChunksDone int64
	Bytes, BytesDone   int64
}

// Line formats it, with the time left at a rate in bytes per second; 0 if the rate
// is not known.
func (c Progress) Line(rate float64) string {
	s := fmt.Sprintf("%d/%d chunks, %s", c.ChunksDone, c.Chunks, Share(c.BytesDone, c.Bytes))
	if rate > 0 {
		s += fmt.Sprintf(", %s/s", Bytes(int64(rate)))
		if left := c.Bytes - c.BytesDone; left > 0 {
			s += fmt.Sprintf(", %s left", Duration(float64(left)/rate))
		}
	}
	return s
}

// Meter measures a rate over the last minute.
type Meter struct {
	mu      sync.Mutex
	samples []sample
}

type sample struct {
	at   time.Time
	done float64
}

const meterSpan = time.Minute

// Rate records how much is done by now and returns the rate per second.
func (m *Meter) Rate(done float64) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if n := len(m.samples); n < 2 || now.Sub(m.samples[n-1].at) >= time.Second/2 {
		m.samples = append(m.samples, sample{now, done})
	}
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) > meterSpan {
		m.samples = m.samples[1:]
	}
	first := m.samples[0]
	if t := now.Sub(first.at).Seconds(); t > 0 {
		return (done - first.done) / t
	}
	return 0
}
