// Package cli is what all commands share: their frame (Main), arguments, exit
// statuses, messages, signals and the live line.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"bf/lib/pg"
	"bf/lib/stream"

	"github.com/mattn/go-isatty"
)

// Exit statuses. 255 is never one of them: it would make xargs stop everything.
const (
	OK      = 0
	Failed  = 1
	Usage   = 2
	Differs = 3   // bf-verify found a difference
	Stopped = 130 // stopped on request
)

// Common are the flags of every tool.
type Common struct {
	Quiet   bool `arg:"-q,--quiet" help:"print errors only"`
	Verbose bool `arg:"-v,--verbose" help:"say more on stderr"`
	Version bool `arg:"--version" help:"display the version and exit"`
}

func (c *Common) common() *Common { return c }

// version is set by the Makefile; a plain go build leaves it to the build's own
// information.
var version string

// Version is the version of this build of bf.
func Version() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "devel"
}

// commit is set as version is.
var commit string

// Build says what this build is: its version and commit, the Go that made it, and
// the version of the stream that it reads and writes.
func Build() string {
	commit := commit
	if b, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range b.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				commit += " and changes"
			}
		}
	}
	if commit == "" {
		commit = "unknown"
	}
	return fmt.Sprintf("%s (commit %s, %s, stream version %d)", Version(), commit, runtime.Version(), stream.Version)
}

// Log prints a tool's messages for people: the tool's name first, lower case,
// one line each. It may be used by several goroutines.
type Log struct {
	name           string
	quiet, verbose bool
	mu             sync.Mutex
	w              io.Writer
	live           drawn // what is shown below the messages, see Live
}

// NewLog returns a Log that writes to w.
func NewLog(name string, w io.Writer, c Common) *Log {
	return &Log{name: name, w: w, quiet: c.Quiet, verbose: c.Verbose}
}

// Info says something unless --quiet was given.
func (l *Log) Info(format string, args ...any) {
	if !l.quiet {
		l.print(format, args...)
	}
}

// Detail says something when --verbose was given.
func (l *Log) Detail(format string, args ...any) {
	if l.verbose && !l.quiet {
		l.print(format, args...)
	}
}

// Warn says something that the user should know, whatever the flags.
func (l *Log) Warn(format string, args ...any) { l.print(format, args...) }

func (l *Log) print(format string, args ...any) {
	l.write(fmt.Sprintf("%s: %s\n", l.name, Clean(fmt.Sprintf(format, args...))))
}

// write prints lines in one piece, as other processes share the terminal.
func (l *Log) write(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.w, l.above(s))
}

// Pass passes lines of other commands on as they are.
func (l *Log) Pass(lines string) { l.write(lines) }

// Error prints an error, and the hint that it carries.
func (l *Log) Error(err error) {
	s := fmt.Sprintf("%s: %s\n", l.name, Clean(err.Error()))
	if h := Hint(err); h != "" {
		s += "hint: " + Clean(h) + "\n"
	}
	l.write(s)
}

// Hint returns what the error suggests to do next, or "".
func Hint(err error) string {
	var h interface{ Suggest() string }
	if errors.As(err, &h) {
		return h.Suggest()
	}
	return pg.Hint(err)
}

// Clean keeps a message on one line and free of control characters: names and
// values of a server end up in it.
func Clean(s string) string { return printable(strings.TrimSpace(s)) }

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
			return -1
		}
		return r
	}, s)
}

var negative = regexp.MustCompile("^-([0-9]|infinity$)")

// JoinBounds joins a negative bound to its flag ("--until -5"), as the parser would take
// it for another flag.
func JoinBounds(args []string) (out []string) {
	bounds := []string{"--from", "-F", "--until", "-u"}
	for _, a := range args {
		if n := len(out); n > 0 && negative.MatchString(a) && slices.Contains(bounds, out[n-1]) {
			out[n-1] += "=" + a
		} else {
			out = append(out, a)
		}
	}
	return out
}

// IsTerminal reports whether f is a file that shows on a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && (isatty.IsTerminal(file.Fd()) || isatty.IsCygwinTerminal(file.Fd()))
}

// Bytes formats a size for people.
func Bytes(n int64) string {
	const units = "kMGTPE"
	f, u := float64(n), -1
	for f >= 999.5 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	if u < 0 {
		return fmt.Sprintf("%d B", n)
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, units[u])
	}
	return fmt.Sprintf("%.0f %cB", f, units[u])
}
