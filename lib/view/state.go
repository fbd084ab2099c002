// Package view shows how far a backfill is, to people who watch it: what the
// target's tasks and sessions tell, so it runs anywhere and is the same whoever
// copies, on however many hosts.
package view

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bf/lib/cli"
	"bf/lib/queue"
)

// Phase is what a backfill is at.
type Phase string

// The phases in their order; "" before anything is known.
const (
	Stage   Phase = "stage"
	Copy    Phase = "copy"
	Refresh Phase = "refresh"
	Verify  Phase = "verify"
)

// State is what is shown: a snapshot of a backfill.
type State struct {
	Phase   Phase
	Each    []*queue.Counts // per hypertable
	Workers []*queue.Worker
	// Rates in bytes per second: that of the last minute, and that of the whole.
	Recent, Whole float64
}

// all counts the tasks of all hypertables.
func (s *State) all() *queue.Counts {
	var all queue.Counts
	for _, c := range s.Each {
		all.Add(c)
	}
	return &all
}

// inHand is how much of a task in hand has been copied. COPY data may be longer
// than the table it came from: it stays below 100 % until the end.
func inHand(w *queue.Worker) int64 { return min(w.Copied, w.Bytes*99/100) }

// lanes are the workers of the phase.
func (s *State) lanes() (of []*queue.Worker) {
	for _, w := range s.Workers {
		switch {
		case w.Tool == "bf-load" && s.Phase == Copy,
			strings.HasPrefix(w.Tool, "bf-verify") && s.Phase == Verify,
			w.Tool == "bf-caggs" && s.Phase == Refresh:
			of = append(of, w)
		}
	}
	return of
}

// course is how far the phase is, of a phase that can tell.
func (s *State) course() cli.Progress {
	all := s.all()
	if s.Phase == Verify {
		return cli.Progress{Chunks: all.Done, ChunksDone: all.Verified + all.Unequal,
			Bytes: all.BytesDone, BytesDone: all.BytesVerified}
	}
	p := cli.Progress{Chunks: all.Total, ChunksDone: all.Done, Bytes: all.Bytes, BytesDone: all.BytesDone}
	for _, w := range s.Workers {
		if w.Tool == "bf-load" {
			p.BytesDone += inHand(w)
		}
	}
	p.BytesDone = min(p.BytesDone, p.Bytes)
	return p
}

// share is a fraction by bytes, or by chunks where no sizes are known.
func share(p cli.Progress) float64 {
	switch {
	case p.Bytes > 0:
		return float64(p.BytesDone) / float64(p.Bytes)
	case p.Chunks > 0:
		return float64(p.ChunksDone) / float64(p.Chunks)
	}
	return 0
}

// percent never says 100 before the end.
func percent(p cli.Progress) int {
	n := int(share(p) * 100)
	if p.ChunksDone < p.Chunks {
		n = min(n, 99)
	}
	return n
}

// left is the time left in words, "" if it is not known.
func (s *State) left(p cli.Progress) string {
	rate := s.Recent
	if rate == 0 {
		rate = s.Whole
	}
	if rest := p.Bytes - p.BytesDone; rest > 0 && rate > 0 {
		return cli.Duration(float64(rest)/rate) + " left"
	}
	return ""
}

func rate(of float64) string { return cli.Bytes(int64(of)) + "/s" }

// Line is the state in one line, for where nothing can be redrawn.
func (s *State) Line() string {
	p := s.course()
	if s.Phase != Copy && s.Phase != Verify || p.Chunks == 0 {
		return string(s.Phase)
	}
	line := fmt.Sprintf("%s %d%%, %d/%d chunks, %s",
		s.Phase, percent(p), p.ChunksDone, p.Chunks, cli.Share(p.BytesDone, p.Bytes))
	if s.Recent > 0 {
		line += ", " + rate(s.Recent)
	}
	if left := s.left(p); left != "" {
		line += ", " + left
	}
	all := s.all()
	if all.Failed > 0 {
		line += fmt.Sprintf("; %d failed", all.Failed)
	}
	if all.Unequal > 0 {
		line += fmt.Sprintf("; %d unequal", all.Unequal)
	}
	return line
}

// How many lines the hypertables and the lanes may take, however high the terminal
// is: what is in hand, or has failed, is shown first.
const most = 12

// Block is the state for a terminal of that many columns and rows.
func (s *State) Block(columns, rows int) []string {
	if columns <= 0 {
		columns = 80
	}
	if rows <= 0 {
		rows = 24
	}
	columns-- // room for the cursor
	lines := []string{s.head(columns)}
	room := rows - 2 // the head, and a line of what scrolled by
	if room < 3 {
		return lines
	}
	lanes := min(len(s.lanes()), most, room/2)
	tables := s.hypertables(columns, min(most, room-lanes))
	lines = append(lines, tables...)
	return append(lines, s.laneLines(columns, min(most, room-len(tables)))...)
}

// head is the line of the whole. What does not fit is left out, the least wanted
// first, last of all the bar; a wide terminal has a wide one.
func (s *State) head(columns int) string {
	p := s.course()
	if s.Phase != Copy && s.Phase != Verify || p.Chunks == 0 {
		return string(s.Phase)
	}
	parts := []string{fmt.Sprintf("%3d%%", percent(p)), cli.Share(p.BytesDone, p.Bytes)}
	var recent, whole string
	if s.Recent > 0 {
		recent = rate(s.Recent)
	}
	if s.Whole > 0 && s.Phase == Copy {
		whole = "(whole " + rate(s.Whole) + ")"
	}
	parts = append(parts, recent, whole, s.left(p))
	const narrow = 10
	for _, drop := range []int{3, 1, 2} {
		if width(s.Phase, parts)+narrow+4 <= columns {
			break
		}
		parts[drop] = ""
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	wide := min(columns-width(s.Phase, parts)-4, 40)
	if wide < 3 {
		return string(s.Phase) + " " + strings.Join(parts, "  ")
	}
	return string(s.Phase) + "  " + bar(share(p), wide) + " " + strings.Join(parts, "  ")
}

func width(phase Phase, parts []string) int {
	n := len(phase) + 1
	for _, p := range parts {
		if p != "" {
			n += cli.Width(p) + 2
		}
	}
	return n
}

// bar is a fraction as a picture of that many characters between its brackets.
func bar(fraction float64, wide int) string {
	full := min(int(fraction*float64(wide)), wide)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", wide-full) + "]"
}

// rank says which hypertables are shown first where there is no room for all.
func (s *State) rank(c *queue.Counts) int {
	switch {
	case slices.ContainsFunc(s.lanes(), func(w *queue.Worker) bool { return w.Hypertable == c.Hypertable }):
		return 0
	case c.Failed > 0 || c.Unequal > 0:
		return 1
	case c.Pending() > 0 && c.Done > 0:
		return 2
	case c.Pending() > 0:
		return 3
	}
	return 4
}

// hypertables are a line for each, or for those that matter most.
func (s *State) hypertables(columns, lines int) []string {
	shown := slices.Clone(s.Each)
	if len(shown) > lines {
		ranks := map[*queue.Counts]int{}
		for _, c := range shown {
			ranks[c] = s.rank(c)
		}
		slices.SortStableFunc(shown, func(a, b *queue.Counts) int { return ranks[a] - ranks[b] })
		shown = shown[:max(lines-1, 0)]
	}
	var rest queue.Counts
	var cells [][]string
	for _, c := range s.Each {
		if !slices.Contains(shown, c) {
			rest.Add(c)
			continue
		}
		cells = append(cells, append([]string{cli.Clean(c.Hypertable.String())}, s.cells(c, columns)...))
	}
	if n := len(s.Each) - len(shown); n > 0 {
		cells = append(cells, append([]string{fmt.Sprintf("… %d more", n)}, s.cells(&rest, columns)...))
	}
	// On a narrow terminal trouble is what matters.
	return layout{columns, indent, false, []yields{{3, 12}, {1, 6}}}.table(cells)
}

// fewColumns are so few that fewer words are made.
const fewColumns = 45

// cells are what is said of a hypertable.
func (s *State) cells(c *queue.Counts, columns int) []string {
	what, bytes := fmt.Sprintf("%d/%d chunks", c.Done, c.Total), cli.Share(c.BytesDone, c.Bytes)
	if s.Phase == Verify {
		what, bytes = fmt.Sprintf("%d/%d verified", c.Verified, c.Done), cli.Share(c.BytesVerified, c.BytesDone)
	}
	if columns < fewColumns {
		what, _, _ = strings.Cut(what, " ")
	}
	var trouble []string
	if c.Failed > 0 {
		trouble = append(trouble, fmt.Sprintf("%d failed", c.Failed))
	}
	if c.Unequal > 0 {
		trouble = append(trouble, fmt.Sprintf("%d unequal", c.Unequal))
	}
	return []string{what, strings.Join(trouble, ", "), bytes}
}

// laneLines are a line for each process at work in the phase.
func (s *State) laneLines(columns, lines int) []string {
	lanes := s.lanes()
	hosts := map[string]bool{}
	for _, w := range lanes {
		hosts[w.Host] = true
	}
	more := 0
	if len(lanes) > lines {
		more = len(lanes) - max(lines-1, 0)
		lanes = lanes[:max(lines-1, 0)]
	}
	var cells [][]string
	for _, w := range lanes {
		name, at := "waiting for a chunk", ""
		if columns < fewColumns {
			name = "waiting"
		}
		switch {
		case w.Task != 0:
			name = cli.Clean(w.Hypertable.String() + " " + w.Place())
		case s.Phase == Refresh:
			name = "refreshing"
		}
		if w.Copied > 0 && w.Bytes > 0 {
			at = fmt.Sprintf("%d%% of %s", inHand(w)*100/w.Bytes, cli.Bytes(w.Bytes))
		} else if w.Task != 0 {
			at = cli.Bytes(w.Bytes)
		}
		row := []string{name, at, ""}
		if w.Seconds > 0 && (w.Task != 0 || s.Phase == Refresh) {
			row[2] = cli.Duration(w.Seconds)
		}
		if len(hosts) > 1 {
			row = append(row, "from "+cmp.Or(w.Host, "the target")) // no host: by the target's socket
		}
		cells = append(cells, row)
	}
	out := layout{columns, indent, false, []yields{{2, 12}, {1, 8}, {3, 8}}}.table(cells)
	for i := range out {
		out[i] = " >" + out[i][2:]
	}
	if more > 0 {
		out = append(out, cli.Cut(fmt.Sprintf(" > … %d more lanes", more), columns))
	}
	return out
}

// indent stands before the lines below the first one of a block.
const indent = "   "

// yields is a column of a table that is left out where the first column would otherwise
// have fewer characters than least.
type yields struct{ column, least int }

// layout is how a table is fitted into a terminal.
type layout struct {
	columns int      // of the terminal; 0 for any number
	indent  string   // before each line
	dense   bool     // one blank between two columns rather than a shortened first column
	order   []yields // what is left out, one after the other, where there is no room
}

// table aligns cells, the first to the left and the others to the right.
func (l layout) table(rows [][]string) (lines []string) {
	if len(rows) == 0 {
		return nil
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], cli.Width(cell))
		}
	}
	gap := l.fit(widths)
	for _, r := range rows {
		line := l.indent + pad(Shorten(r[0], widths[0]), widths[0])
		for i, cell := range r[1:] {
			if w := widths[i+1]; w > 0 {
				line += strings.Repeat(" ", gap+w-cli.Width(cell)) + cell
			}
		}
		if line = strings.TrimRight(line, " "); l.columns > 0 {
			line = cli.Cut(line, l.columns)
		}
		lines = append(lines, line)
	}
	return lines
}

// fit narrows columns to what there is room for, 0 for those that are left out, and says
// how many blanks stand between two of them.
func (l layout) fit(widths []int) (gap int) {
	gap = 2
	if l.columns == 0 {
		return gap
	}
	room := func() int { // for the first column
		n := l.columns - len(l.indent)
		for _, w := range widths[1:] {
			if w > 0 {
				n -= w + gap
			}
		}
		return n
	}
	if l.dense && room() < widths[0] {
		gap = 1
	}
	for _, y := range l.order {
		if y.column < len(widths) && room() < min(widths[0], y.least) {
			widths[y.column] = 0
		}
	}
	widths[0] = min(widths[0], max(room(), 4))
	return gap
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-cli.Width(s), 0))
}

// Shorten takes the middle out of a name: both ends tell more.
func Shorten(name string, most int) string {
	if cli.Width(name) <= most {
		return name
	}
	head := cli.Cut(name, most/3+1) // it ends with the ellipsis
	tail := []rune(name)
	for len(tail) > 0 && cli.Width(head)+cli.Width(string(tail)) > most {
		tail = tail[1:]
	}
	return head + string(tail)
}
