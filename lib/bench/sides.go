package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// sides are the two servers, and the commands that work on both of them.
type sides struct {
	src, dst *server
	env      []string          // of the commands
	records  map[string]string // task records by hypertable
	peer     string            // the program timescaledb-backfill; "" for none
}

// fresh makes an empty hypertable on the target and stages it.
func (s *sides) fresh(name, columns, indexes, more string) error {
	if err := s.remake(name, columns, indexes, more); err != nil {
		return err
	}
	return s.stage(name)
}

// remake makes the empty hypertable.
func (s *sides) remake(name, columns, indexes, more string) error {
	return s.dst.exec("drop schema if exists __backfill cascade; drop table if exists " + name + "; " +
		table(name, columns, indexes) + more + "; checkpoint")
}

func (s *sides) stage(name string) error {
	plan := s.planner(name)
	cmd := exec.Command(plan[0], plan[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	s.records[name] = string(out)
	return err
}

// planner is the command that stages a table.
func (s *sides) planner(name string) []string {
	return []string{"bf-stage", "--quiet", "--source", s.src.uri, "--target", s.dst.uri, "--until", "2100-01-01",
		"--filter", `^public\.` + name + "$"}
}

func (s *sides) dump() []string { return []string{"bf-dump", "--quiet", "--source", s.src.uri} }

func (s *sides) load() []string { return []string{"bf-load", "--quiet", "--target", s.dst.uri} }

// psql copies chunks one after the other through a pair of psql each.
func (s *sides) psql(m *meter, name string, most int) error {
	from, err := s.src.chunks(name)
	if err != nil {
		return err
	}
	to, err := s.dst.chunks(name)
	if err != nil || len(from) != len(to) {
		return fmt.Errorf("%d chunks here, %d there: %w", len(from), len(to), err)
	}
	for i := range from[:min(most, len(from))] {
		if err := m.pipe("",
			[]string{"psql", "-Xqd", s.src.uri, "-c", "copy (select * from " + from[i] + ") to stdout (format binary)"},
			[]string{"psql", "-Xqd", s.dst.uri, "-c", "copy " + to[i] + " from stdin (format binary)"}); err != nil {
			return err
		}
	}
	return nil
}

// wire counts the bytes that a command writes.
func wire(stdin string, command ...string) int64 {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return 0
	}
	n, _ := io.Copy(io.Discard, out)
	if cmd.Wait() != nil {
		return 0
	}
	return n
}

// lanes runs n lanes that share the work.
func (s *sides) lanes(n int) func(m *meter) error {
	return func(m *meter) error {
		return m.pipe("", []string{"sh", "-c", fmt.Sprintf(`for i in $(seq %d); do
                bf-chunks --target "$TARGET" --claim | bf-dump -q --source "$SOURCE" | bf-load -q --target "$TARGET" `+
			`>/dev/null & done; wait`, n)})
	}
}

// single runs one pipe over the records that are staged.
func (s *sides) single(name string) func(m *meter) error {
	return func(m *meter) error { return m.pipe(s.records[name], s.dump(), s.load()) }
}

func (s *sides) prepare(name, columns, indexes, more string) func() error {
	return func() error { return s.fresh(name, columns, indexes, more) }
}

// verify compares both sides, one chunk at a time.
func (s *sides) verify(m *meter) error { return s.verifies(1)(m) }

// peers is a command of the peer's. It reports to nobody that it was run.
func (s *sides) peers(command string, args ...string) []string {
	return append([]string{s.peer, "--disable-telemetry", command, "--source", withPassword(s.src.uri),
		"--target", withPassword(s.dst.uri)}, args...)
}

// verifies compares n chunks at a time.
func (s *sides) verifies(n int) func(m *meter) error {
	return func(m *meter) error {
		return m.pipe("", []string{"bf-verify", "--quiet", "--source", s.src.uri, "--target", s.dst.uri,
			"--parallelism", strconv.Itoa(n)})
	}
}

// attached says whether the chunks were loaded first and attached then.
func (s *sides) attached() bool {
	way, _ := s.dst.strings("select coalesce(copy_message, '') from __backfill.task")
	return strings.Contains(strings.Join(way, ""), "became the chunk")
}
