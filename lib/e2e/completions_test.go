package e2e

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// What shells offer besides all options: files where an option or the command takes
// one, nothing for other values, an option again only if it may be repeated.
var completed = []struct{ line, offers string }{
	{"bf-stage --reject ", "a-file"},
	{"bf-stage a-", "a-file"},
	{"bf-backfill --until 2020-01-01 a-", "a-file"},
	{"bf-dump --compress ", ""},
	{"bf-backfill -p ", ""},
	{"bf-chunks a-", ""},
	{"bf-stage --no-h", "--no-header"},
	{"bf-stage --map a=b --ma", "--map"},
}

// TestCompletions: shells offer all options of --help, and what goes with them.
func TestCompletions(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	dir, all := t.TempDir(), tools(t)
	names := slices.Sorted(maps.Keys(all))
	args := []string{"../../scripts/completions", dir}
	for _, name := range names {
		args = append(args, all[name])
	}
	make := (*pair)(nil).command(t, bash, args...)
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "a-file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var typed, want []string
	for _, name := range names {
		options, _ := flags((*pair)(nil).ok(t, "", all[name], "--help"))
		typed, want = append(typed, name+" -"), append(want, strings.Join(options, " "))
	}
	for _, c := range completed {
		typed, want = append(typed, c.line), append(want, c.offers)
	}
	offers := func(t *testing.T, shell string, args ...string) {
		t.Helper()
		cmd := exec.Command(shell, append(args, typed...)...)
		cmd.Dir = work
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := strings.Split(string(out), ".\n")
		for i, line := range typed {
			offered := "nothing at all"
			if i < len(got) {
				offered = strings.Join(sortedStrings(strings.Fields(got[i])), " ")
			}
			if offered != want[i] {
				t.Errorf("%q offers\n%q, want\n%q", line, offered, want[i])
			}
		}
	}
	t.Run("bash", func(t *testing.T) { offers(t, bash, abs(t, "testdata/complete.bash"), dir+"/bash") })
	t.Run("zsh", func(t *testing.T) {
		zsh, err := exec.LookPath("zsh")
		if err != nil {
			t.Skip("no zsh here")
		}
		// What is described there is what --help says, as it is written there.
		spec, err := os.ReadFile(dir + "/zsh/_bf-dump")
		if err != nil || !utf8.Valid(spec) || !strings.Contains(string(spec), `[none, zstd\[\:LEVEL\] or s2 `) {
			t.Errorf("%v\n%s", err, spec)
		}
		offers(t, zsh, "-f", abs(t, "testdata/complete.zsh"), dir+"/zsh")
	})
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
