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

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tested are the blocks of the README behind a comment <!-- tested: KIND -->.
var tested = regexp.MustCompile("<!-- tested(?:: ([^>]*))? -->\\s*```(?:sh|sql)\n((?s:.*?))```")

// TestReadme runs what the README tells to run, on a hypertable that is staged.
// Kinds of blocks: one that copies must leave nothing to do; one that clones
// starts with an empty target; one that is for what is done, and SQL, with all
// copied.
func TestReadme(t *testing.T) {
	blocks := tested.FindAllStringSubmatch(readme(t), -1)
	if len(blocks) < 10 {
		t.Fatalf("%d tested blocks in the README: the expression is out of date", len(blocks))
	}
	in := testdb.Installs(t)[0]
	// The scripts, by the names that make install gives them.
	scripts := t.TempDir()
	for _, s := range []string{"backfill", "clone-schema"} {
		path, err := filepath.Abs("../../scripts/" + s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(scripts, "bf-"+s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range blocks {
		kind, code := b[1], b[2]
		t.Run(strings.SplitN(code, "\n", 2)[0], func(t *testing.T) {
			kind, tool, needs := strings.Cut(kind, "; needs ")
			if needs {
				if _, err := exec.LookPath(tool); err != nil {
					t.Skip("needs " + tool)
				}
			}
			p := newPair(t, testdb.Pair{Source: in, Target: in})
			p.metrics(t)
			switch kind {
			case "clones":
				p.dst.Exec(t, "drop table metrics")
			case "done":
				p.stage(t, "--until", "2016-01-02T00:00:00")
				p.copy(t)
			case "sql":
				p.stage(t, "--until", "2016-01-02T00:00:00")
				p.copy(t)
				p.dst.Exec(t, code)
				return
			default:
				p.stage(t, "--until", "2016-01-02T00:00:00")
			}
			cmd := p.script(t, "backfill")
			cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "-euo", "pipefail", "-c", code}
			cmd.Dir = t.TempDir()
			for i, kv := range cmd.Env {
				if v, ok := strings.CutPrefix(kv, "PATH="); ok {
					cmd.Env[i] = "PATH=" + scripts + string(os.PathListSeparator) + v
				}
			}
			// As a user of --source and --target has it.
			cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool { return strings.HasPrefix(kv, "BF_") })
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s\n%v\n%s", code, err, out)
			}
			if kind == "copies" {
				if pending := p.chunks(t); pending != "" {
					t.Errorf("%s\nis done, and these are pending:\n%s", code, pending)
				}
				p.same(t, "select * from metrics where time < '2016-01-02Z'")
			}
		})
	}
}

// TestReadmeFlags compares the flags that the README lists for each tool with
// those of its --help.
func TestReadmeFlags(t *testing.T) {
	common := []string{"--help", "--quiet", "--source", "--target", "--verbose", "--version"}
	long := regexp.MustCompile(`--[a-z][a-z-]*`)
	listed := map[string][]string{}
	for _, section := range strings.Split(readme(t), "\n### ")[1:] {
		section, _, _ = strings.Cut(section, "\n## ")
		tool, text, _ := strings.Cut(section, "\n")
		listed[tool] = nil
		for _, row := range regexp.MustCompile("(?m)^\\| (`-[^|]*)\\|").FindAllStringSubmatch(text, -1) {
			listed[tool] = append(listed[tool], long.FindAllString(row[1], -1)...)
		}
	}
	listed["bf-backfill"] = append(listed["bf-backfill"], listed["bf-stage"]...)
	// The script decides itself about the jobs.
	listed["bf-backfill"] = slices.DeleteFunc(listed["bf-backfill"], func(f string) bool { return f == "--pause-jobs" })

	tools, err := filepath.Glob(filepath.Join(testdb.Bin(t), "bf-*"))
	if err != nil {
		t.Fatal(err)
	}
	help := map[string]string{"bf-backfill": "../../scripts/backfill", "bf-clone-schema": "../../scripts/clone-schema"}
	for _, path := range tools {
		help[filepath.Base(path)] = path
	}
	for tool, path := range help {
		out := (*pair)(nil).ok(t, "", path, "--help")
		var flags []string
		for _, f := range regexp.MustCompile(`(?m)^ {0,4}(-.*?)( {2,}|$)`).FindAllStringSubmatch(out, -1) {
			flags = append(flags, long.FindAllString(f[1], -1)...)
		}
		flags = slices.DeleteFunc(flags, func(f string) bool { return slices.Contains(common, f) })
		if got, want := slices.Compact(sortedStrings(slices.Clone(listed[tool]))), sortedStrings(flags); !slices.Equal(got, want) {
			t.Errorf("the README lists %q for %s, its --help %q", got, tool, want)
		}
		if _, ok := listed[tool]; !ok {
			t.Errorf("the README has no section ### %s", tool)
		}
	}
	for tool := range listed {
		if help[tool] == "" {
			t.Errorf("the README has a section on %s, which does not exist", tool)
		}
	}
}

// TestReadmeLinks follows the links within the README.
func TestReadmeLinks(t *testing.T) {
	text := readme(t)
	var anchors []string
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchors = append(anchors, strings.ReplaceAll(strings.ToLower(regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(h[1], "")), " ", "-"))
	}
	for _, l := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if !slices.Contains(anchors, l[1]) {
			t.Errorf("no heading for #%s", l[1])
		}
	}
}
