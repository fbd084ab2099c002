package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"bf/lib/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// testFlags are those of a command that does what --do says.
type testFlags struct {
	Target string `arg:"--target"`
	Do     string `arg:"--do"`
	Common
}

func (*testFlags) Description() string { return "Does what it is told." }

func (f *testFlags) Check(e *Env) error {
	if f.Target == "" {
		return e.Usagef("--target is required")
	}
	return nil
}

func (*testFlags) Rewrite(args []string) []string {
	for i, a := range args {
		args[i] = strings.TrimPrefix(a, "!")
	}
	return args
}

type badArgument struct{}

func (badArgument) Error() string   { return "no such time" }
func (badArgument) BadUsage() bool  { return true }
func (badArgument) Suggest() string { return "say another" }

// TestRun runs a command with all that can become of it: what is on stdout, what
// on stderr, and the exit status.
func TestRun(t *testing.T) {
	run := func(e *Env, f *testFlags) error {
		e.Log.Info("at %s", f.Target)
		e.Log.Detail("detail")
		fmt.Fprintln(e.Stdout, "data")
		switch f.Do {
		case "fail":
			return &pg.Error{Side: pg.Target, Object: "chunk c", Err: errors.New("is\nbad"), Hint: "mend it"}
		case "usage":
			return fmt.Errorf("--until: %w", badArgument{})
		case "filter":
			return &pg.Error{Side: pg.Source, Object: "--filter (",
				Err: &pgconn.PgError{Code: pg.InvalidRegexp, Message: "brackets"}}
		case "differs":
			return Exit(Differs)
		case "zero":
			return Exit(OK)
		}
		return nil
	}
	for _, c := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"--target x", OK, "data\n", "t: at x\n"},
		{"!--target !x", OK, "data\n", "t: at x\n"},
		{"--target x -v", OK, "data\n", "t: at x\nt: detail\n"},
		{"--target x -q", OK, "data\n", ""},
		{"", Usage, "", "t: --target is required\nhint: t --help\n"},
		{"--nonsense", Usage, "", "t: unknown argument --nonsense\nhint: t --help\n"},
		{"--target postgres://me:s3cret@h/d surplus", Usage, "",
			"t: too many positional arguments at 'surplus'\nhint: t --help\n"},
		{"--version", OK, "t devel", ""},
		{"--help", OK, "Does what it is told.\n", ""},
		{"-h --nonsense", OK, "Does what it is told.\n", ""},
		{"--target x -q --do fail", Failed, "data\n", "t: target: chunk c: is bad\nhint: mend it\n"},
		{"--target x -q --do usage", Usage, "data\n", "t: --until: no such time\nhint: say another\n"},
		{"--target x -q --do filter", Usage, "data\n", "t: source: --filter (: brackets (SQLSTATE 2201B)\n"},
		{"--target x -q --do differs", Differs, "data\n", ""},
		{"--target x -q --do zero", OK, "data\n", ""},
	} {
		var out, errs bytes.Buffer
		env := &Env{Name: "t", Args: strings.Fields(c.args), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}
		status := Run(env, &testFlags{}, run)
		exact := strings.HasSuffix(c.stderr, "\n") || c.stderr == ""
		if status != c.status || !strings.HasPrefix(out.String(), c.stdout) || exact && errs.String() != c.stderr ||
			!strings.HasPrefix(errs.String(), c.stderr) {
			t.Errorf("%s: exit status %d, %q, %q; want %d, %q, %q", c.args, status, out.String(), errs.String(),
				c.status, c.stdout, c.stderr)
		}
	}
}

// TestFormats: what people see of sizes, times and progress.
func TestFormats(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Bytes(0), "0 B"}, {Bytes(999), "999 B"}, {Bytes(1000), "1.0 kB"}, {Bytes(9949), "9.9 kB"},
		{Bytes(9951), "10 kB"},
		{Bytes(999_499), "999 kB"}, {Bytes(999_500), "1.0 MB"}, {Bytes(7_500_000_000), "7.5 GB"},
		{Bytes(1 << 62), "4.6 EB"},
		{Share(1_200_000_000, 4_000_000_000), "1.2/4.0 GB"}, {Share(500, 4_000), "500 B/4.0 kB"},
		{Share(0, 0), "0/0 B"},
		{Duration(0.4), "0s"}, {Duration(59.4), "59s"}, {Duration(59.6), "1m00s"}, {Duration(200), "3m20s"},
		{Duration(5*3600 + 12*60), "5h12m"}, {Duration(51 * 3600), "2d3h"},
		{Progress{Chunks: 10, ChunksDone: 3, Bytes: 4000, BytesDone: 1000}.Line(0), "3/10 chunks, 1.0/4.0 kB"},
		{Progress{Chunks: 10, ChunksDone: 3, Bytes: 4000, BytesDone: 1000}.Line(1000),
			"3/10 chunks, 1.0/4.0 kB, 1.0 kB/s, 3s left"},
		{Progress{Chunks: 1, ChunksDone: 1, Bytes: 5, BytesDone: 7}.Line(10), "1/1 chunks, 7/5 B, 10 B/s"},
		{Cut("häuser", 6), "häuser"}, {Cut("häuser", 3), "hä…"}, {Cut("häuser", 0), "…"},
		{Cut("温度センサー", 12), "温度センサー"}, {Cut("温度センサー", 11), "温度センサ…"}, {Cut("温度センサー", 10), "温度セン…"},
		{Cut("e\u0301te\u0301", 3), "e\u0301te\u0301"},
		{Clean(" a\nb\tc\x1b[31m\u009bd\x7f "), "a b c[31md"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	for n := int64(1); n > 0 && n < 1<<62; n = n*7/5 + 1 {
		if s := Bytes(n); utf8.RuneCountInString(s) > len("9.9 kB") {
			t.Errorf("Bytes(%d) = %q is too long for a line", n, s)
		}
	}
}
