package stream

import (
	"fmt"
	"sort"
)

// Lines tells where in which file the rows of a part stand, so that an error of a row can name
// its line. They come with the end of the part.
type Lines struct {
	Files []string `json:"files"`
	// Jumps are row, file and line, of each row that does not stand in the line after the
	// row before it. Rows are counted from 1.
	Jumps [][3]int64 `json:"jumps"`
	// Until is the first row of which it is not known any more; 0 if it is of all.
	Until int64 `json:"until,omitempty"`

	next [3]int64
	size int
}

// mostLines keeps Lines within a frame.
const mostLines = maxMark * 3 / 4

// Add says where the next row stands.
func (l *Lines) Add(file string, line int64) {
	row := l.next[0] + 1
	f := int64(len(l.Files) - 1)
	if f < 0 || l.Files[f] != file {
		f++
	}
	expected := l.next == [3]int64{row - 1, f, line}
	l.next = [3]int64{row, f, line + 1}
	if expected || l.Until > 0 {
		return
	}
	size := l.size + len(fmt.Sprint(row, f, line)) + 5
	if f == int64(len(l.Files)) {
		size += 6*len(file) + 3 // however JSON escapes it
	}
	if size > mostLines {
		l.Until = row
		return
	}
	if l.size = size; f == int64(len(l.Files)) {
		l.Files = append(l.Files, file)
	}
	l.Jumps = append(l.Jumps, [3]int64{row, f, line})
}

// Place is file:line of a row, "" where nothing is known.
func (l *Lines) Place(row int64) string {
	if l == nil || row < 1 {
		return ""
	}
	i := sort.Search(len(l.Jumps), func(i int) bool { return l.Jumps[i][0] > row }) - 1
	if i < 0 || l.Jumps[i][1] < 0 || l.Jumps[i][1] >= int64(len(l.Files)) {
		return ""
	}
	j := l.Jumps[i]
	if l.Until > 0 && row >= l.Until {
		return fmt.Sprintf("after %s:%d", l.Files[j[1]], j[2]+l.Until-1-j[0])
	}
	return fmt.Sprintf("%s:%d", l.Files[j[1]], j[2]+row-j[0])
}

// partEnd is the content of an E frame.
type partEnd struct {
	sum
	Lines *Lines `json:"lines,omitempty"`
}
