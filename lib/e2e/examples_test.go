package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bf/lib/testdb"
)

// example is a block of the README or of a manual page that is marked to be
// executed.
type example struct {
	where, kind, code string
}

var (
	// In the README a comment <!-- tested: KIND --> precedes the block, in a
	// manual page a comment .\" tested: KIND.
	readmeExample = regexp.MustCompile("<!-- tested(?:: ([^>]*))? -->\\s*```(?:sh|sql)\n((?s:.*?))```")
	pageExample   = regexp.MustCompile(`(?m)^\.\\" tested(?:: (.*))?\n\.Bd -literal.*\n((?s:.*?))^\.Ed$`)
)

func examples(t *testing.T) (all []example) {
	t.Helper()
	for _, m := range readmeExample.FindAllStringSubmatch(readme(t), -1) {
		all = append(all, example{"README", m[1], m[2]})
	}
	for _, p := range pages(t) {
		for _, m := range pageExample.FindAllStringSubmatch(p.source, -1) {
			all = append(all, example{p.name, m[1], text(t, m[2])})
		}
		if n, m := strings.Count(p.source, `.\" tested`), len(pageExample.FindAllString(p.source, -1)); n != m {
			t.Errorf("%s: %d examples are marked as tested, %d found", p.path, n, m)
		}
	}
	return all
}

// TestExamples runs what README and manual tell to run, on a hypertable that is
// staged. Kinds of examples: one that copies must leave nothing to do; one that
// clones starts with an empty target; one that is for what is done, and SQL,
// with all copied.
func TestExamples(t *testing.T) {
	all := examples(t)
	if len(all) < 25 {
		t.Fatalf("%d tested examples: an expression is out of date", len(all))
	}
	in := testdb.Installs(t)[0]
	scripts := installed(t)
	for _, e := range all {
		t.Run(e.where+" "+strings.SplitN(e.code, "\n", 2)[0], func(t *testing.T) {
			kind, tool, needs := strings.Cut(e.kind, "; needs ")
			if needs {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip("needs " + tool)
				}
			}
			p := newPair(t, testdb.Pair{Source: in, Target: in})
			p.metrics(t)
			if kind == "clones" {
				p.dst.Exec(t, "drop table metrics")
			} else {
				p.stage(t, "--until", "2016-01-02T00:00:00")
			}
			if kind == "done" || kind == "sql" {
				p.copy(t)
			}
			if kind == "sql" {
				p.dst.Exec(t, e.code)
				return
			}
			p.follow(t, e.code, scripts)
			if kind == "copies" {
				if pending := p.chunks(t); pending != "" {
					t.Errorf("%s\nis done, and these are pending:\n%s", e.code, pending)
				}
				p.same(t, "select * from metrics where time < '2016-01-02Z'")
			}
		})
	}
}

// installed returns a directory with the scripts, by the names that make
// install gives them.
func installed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, s := range []string{"backfill"} {
		path, err := filepath.Abs("../../scripts/" + s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, "bf-"+s)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// follow runs shell code as a user does who has read about --source and
// --target only.
func (p *pair) follow(t *testing.T, code, scripts string) {
	t.Helper()
	cmd := p.script(t, "backfill")
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-euo", "pipefail", "-c", code}
	cmd.Dir = t.TempDir()
	for i, kv := range cmd.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			cmd.Env[i] = "PATH=" + scripts + string(os.PathListSeparator) + v
		}
	}
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "BF_") })
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", code, err, out)
	}
}
