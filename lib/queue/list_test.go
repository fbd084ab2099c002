package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestWhere: every parameter of a condition has its value, and a filter never
// becomes SQL.
func TestWhere(t *testing.T) {
	const hostile = `'; drop table x; --`
	for _, state := range []State{Pending, Done, Failed, Unverified, All} {
		for _, tasks := range [][]int64{nil, {1, 2}} {
			for _, filter := range []string{"", hostile} {
				s := Selection{State: state, Tasks: tasks, Filter: filter}
				where, args := s.where()
				for n := range 4 {
					if used := strings.Contains(where, fmt.Sprintf("$%d", n+1)); used != (n < len(args)) {
						t.Errorf("%+v: %s with %d parameters", s, where, len(args))
					}
				}
				if strings.Contains(where, "drop") {
					t.Errorf("%+v: %s", s, where)
				}
				if tasks != nil && strings.Contains(where, state.sql()) {
					t.Errorf("%+v: numbered tasks are listed whatever their state: %s", s, where)
				}
			}
		}
	}
}

// TestFull: a lane holds one task ahead, and more only of small ones.
func TestFull(t *testing.T) {
	for _, c := range []struct {
		held []int64 // bytes
		want bool
	}{
		{nil, false},
		{[]int64{1 << 40}, false},
		{[]int64{1 << 40, 1}, true},
		{[]int64{1, 1}, false},
		{[]int64{aheadBytes / 2, aheadBytes / 2}, false},
		{[]int64{aheadBytes / 2, aheadBytes/2 + 1}, true},
		{make([]int64, aheadTasks/2), false},
		{make([]int64, aheadTasks/2+1), true},
	} {
		l := &Lane{held: map[int64]int64{}, started: time.Now()}
		for n, b := range c.held {
			l.held[int64(n)] = b
		}
		if got := l.full(); got != c.want {
			t.Errorf("%d held: full %t", len(c.held), got)
		}
	}
}

// TestStorable: whatever a server says can be kept in a column.
func TestStorable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "Größe": "Größe", "Gr\xc3": "Gr\ufffd", "a\x00b": "a\ufffdb", "\xff\xfe": "\ufffd",
	} {
		if got := storable(in); got != want {
			t.Errorf("storable(%q) = %q, want %q", in, got, want)
		}
	}
}
