package schema

import (
	"context"
	"errors"
	"io"
	"math/rand"
	"os/exec"
	"strings"
	"testing"

	"bf/lib/task"
)

// nothing is a sink that takes everything.
type nothing struct{}

func (nothing) about(string, string) error       { return nil }
func (nothing) do(context.Context, string) error { return nil }
func (nothing) rows(_ context.Context, _ string, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// TestStream: a dump that ends too early is an error, whatever its program says,
// and what the program says is told.
func TestStream(t *testing.T) {
	const whole = `printf 'SELECT 1;\n\nCOPY t (a) FROM stdin;\n1\n\\.\n\n'`
	for _, c := range []struct{ script, want string }{
		{whole, ""},
		{`printf 'SELECT 1'`, "unexpected EOF"},
		{`printf 'COPY t (a) FROM stdin;\n1\n'`, "unexpected EOF"},
		{`printf 'COPY t (a) FROM stdin;\n1\n'; echo 'pg_dump: error: it; password=secret' >&2; exit 1`,
			"it; password=xxxxx"},
		{whole + `; echo 'pg_dump: error: late' >&2; exit 1`, "late"},
		{`printf '\\! id\n'; exec sleep 5`, "a psql command"},
	} {
		err := stream(exec.Command("sh", "-c", c.script), func(r io.Reader) error {
			return pipe(context.Background(), r, nothing{}, true)
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.script, err, c.want)
		}
	}
	failed := errors.New("failed")
	if err := stream(exec.Command("sh", "-c", "while echo x; do :; done"), func(io.Reader) error {
		return failed
	}); err != failed {
		t.Error(err)
	}
}

// TestNames: a name is read as it was written, whatever it consists of.
func TestNames(t *testing.T) {
	letters := []string{"a", "Z", "ü", `"`, "'", " ", ".", ";", "\n", "select", "1", "_", "$", "("}
	r := rand.New(rand.NewSource(1))
	name := func() (s string) {
		for range 1 + r.Intn(6) {
			s += letters[r.Intn(len(letters))]
		}
		return s
	}
	for range 5000 {
		n := task.Name{Schema: name(), Name: name()}
		got, rest, ok := qualified(quote(n) + " ADD CONSTRAINT x")
		if !ok || got != n || rest != " ADD CONSTRAINT x" {
			t.Fatalf("%q became %q, %q", n, got, rest)
		}
	}
}

// TestInterval: an interval is written in the largest unit that it is a multiple
// of.
func TestInterval(t *testing.T) {
	for us, want := range map[int64]string{86400_000_000: "interval '1 day'", 7 * 86400_000_000: "interval '7 days'",
		90 * 60_000_000: "interval '90 minutes'",
		86401_000_000:   "interval '86401 seconds'", 123456789: "interval '123456789 microseconds'",
		1500_000: "interval '1500 milliseconds'"} {
		if got := interval(us); got != want {
			t.Errorf("%d: %s, want %s", us, got, want)
		}
	}
}
