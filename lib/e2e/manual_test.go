package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bf/lib/testdb"
)

// page is a manual page in mdoc.
type page struct {
	path, source  string
	name, section string // of the file: bf-stage, 1
}

// pages returns the manual, as the Makefile finds it.
func pages(t *testing.T) (all []page) {
	t.Helper()
	for _, pattern := range []string{"cmd/*/*.1", "scripts/*.1", "lib/*/*.5", "cmd/*.7"} {
		paths, err := filepath.Glob("../../" + pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("no pages %s (%v)", pattern, err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, section, _ := strings.Cut(filepath.Base(path), ".")
			all = append(all, page{path, string(b), name, section})
		}
	}
	return all
}

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// part returns what is below a heading (.Sh or .Ss) up to the next one of the
// same kind.
func (p page) part(macro, title string) string {
	_, after, _ := strings.Cut(p.source, "\n."+macro+" "+title+"\n")
	after, _, _ = strings.Cut(after, "\n.Sh ")
	if macro == "Ss" {
		after, _, _ = strings.Cut(after, "\n.Ss ")
	}
	return after
}

// text undoes the escapes that an example may hold.
func text(t *testing.T, roff string) string {
	t.Helper()
	s := strings.NewReplacer(`\(aq`, "'", `\(ti`, "~", `\(ha`, "^", `\&`, "").Replace(roff)
	if left := strings.ReplaceAll(s, `\e`, ""); strings.Contains(left, `\`) {
		t.Errorf("an escape that this test does not know in\n%s", roff)
	}
	return strings.ReplaceAll(s, `\e`, `\`)
}

// others are pages of other programs that ours refer to.
var others = []string{"xargs 1", "parallel 1", "ssh 1", "psql 1", "pg_dump 1", "kill 1", "poll 2", "epoll 7"}

// TestManual looks at what all pages have in common.
func TestManual(t *testing.T) {
	known := slices.Clone(others)
	for _, p := range pages(t) {
		known = append(known, p.name+" "+p.section)
	}
	for _, p := range pages(t) {
		t.Run(p.name, func(t *testing.T) {
			sections := []string{"NAME", "DESCRIPTION", "SEE ALSO"}
			if p.section == "1" {
				sections = append(sections, "SYNOPSIS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES")
			}
			for _, s := range sections {
				if p.part("Sh", s) == "" {
					t.Errorf("no section %s", s)
				}
			}
			if !strings.Contains(p.source, "\n.Dt "+strings.ToUpper(p.name)+" "+p.section+"\n") ||
				!strings.HasPrefix(p.part("Sh", "NAME"), ".Nm "+p.name+"\n.Nd ") {
				t.Errorf("title or name are not those of the file")
			}
			for _, x := range regexp.MustCompile(`\bXr (\S+ \d)`).FindAllStringSubmatch(p.source, -1) {
				if !slices.Contains(known, x[1]) {
					t.Errorf("refers to %s, which does not exist", x[1])
				}
			}
			if _, err := exec.LookPath("man"); err != nil {
				t.Skip("no man here: not rendered")
			}
			cmd := exec.Command("man", "--warnings", "-l", p.path)
			cmd.Env = append(os.Environ(), "MANPAGER=cat", "MANWIDTH=80")
			if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "warning") {
				t.Errorf("man -l: %v\n%s", err, out)
			}
		})
	}
}

// tools are the commands and the scripts by their installed names.
func tools(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(testdb.Bin(t), "bf-*"))
	if err != nil {
		t.Fatal(err)
	}
	scripts := installed(t)
	all := map[string]string{}
	for _, s := range []string{"bf-backfill"} {
		all[s] = filepath.Join(scripts, s)
	}
	for _, path := range paths {
		all[filepath.Base(path)] = path
	}
	return all
}

var option = regexp.MustCompile(`(?:^|[\s,;])(--?[a-zA-Z0-9][a-z-]*)`)

// flags returns the options of a --help, and the defaults that it tells.
func flags(help string) (all []string, defaults map[string]string) {
	defaults = map[string]string{}
	head := regexp.MustCompile(`(?m)^ {0,4}(-.*?)(?: {2,}|$)`)
	for _, l := range head.FindAllStringSubmatchIndex(help, -1) {
		found := option.FindAllStringSubmatch(help[l[2]:l[3]], -1)
		for _, f := range found {
			all = append(all, f[1])
		}
		item := help[l[1]:]
		if next := regexp.MustCompile(`(?m)^ {0,4}-|^$`).FindStringIndex(item); next != nil {
			item = item[:next[0]]
		}
		if d := regexp.MustCompile(`\[default: (.*?)\]`).FindStringSubmatch(item); d != nil {
			defaults[found[0][1]] = d[1]
		}
	}
	return sortedStrings(all), defaults
}

// TestManualFlags compares the options in each page with those of --help.
func TestManualFlags(t *testing.T) {
	tools := tools(t)
	helps := map[string]string{}
	for tool, path := range tools {
		helps[tool] = (*pair)(nil).ok(t, "", path, "--help")
		if !strings.Contains(helps[tool], "man "+tool) {
			t.Errorf("%s --help does not name its manual page", tool)
		}
	}
	macro := regexp.MustCompile(`\bFl (-?[a-zA-Z0-9][a-z-]*)`)
	for _, p := range pages(t) {
		if p.section != "1" {
			continue
		}
		help, ok := helps[p.name]
		if !ok {
			t.Errorf("%s describes what does not exist", p.path)
		}
		delete(helps, p.name)
		want, defaults := flags(help)
		var listed []string
		for _, item := range regexp.MustCompile(`(?m)^\.It (.*)$`).FindAllStringSubmatch(p.part("Sh", "DESCRIPTION"),
			-1) {
			for _, f := range macro.FindAllStringSubmatch(item[1], -1) {
				listed = append(listed, "-"+f[1])
			}
		}
		if got := sortedStrings(listed); !slices.Equal(got, want) {
			t.Errorf("%s lists\n%q, --help\n%q", p.path, got, want)
		}
		for _, f := range macro.FindAllStringSubmatch(p.part("Sh", "SYNOPSIS"), -1) {
			if !slices.Contains(want, "-"+f[1]) {
				t.Errorf("%s: -%s in the synopsis", p.path, f[1])
			}
		}
		for flag, value := range defaults {
			item := regexp.MustCompile(`(?m)^\.It .*Fl ` + flag[1:] + `\b(?s:.*?)^\.(?:It Fl|El)`).FindString(p.source)
			if !regexp.MustCompile(`\b` + regexp.QuoteMeta(value) + `\b`).MatchString(item) {
				t.Errorf("%s: %s does not tell its default, %s", p.path, flag, value)
			}
		}
	}
	for tool := range helps {
		t.Errorf("%s has no manual page", tool)
	}
}

// TestManualCommands looks at each command line that README and manual show:
// are there such tools, with such options?
func TestManualCommands(t *testing.T) {
	known := map[string][]string{}
	for tool, path := range tools(t) {
		known[tool], _ = flags((*pair)(nil).ok(t, "", path, "--help"))
	}
	code := map[string][]string{}
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```|`([^`\n]+)`").FindAllStringSubmatch(readme(t), -1) {
		code["README"] = append(code["README"], m[1]+m[2])
	}
	for _, p := range pages(t) {
		for _, m := range regexp.MustCompile(`(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed|^\.P?Ql `+
			`(.*?)$`).FindAllStringSubmatch(p.source, -1) {
			code[p.path] = append(code[p.path], m[1]+m[2])
		}
	}
	n := 0
	command := regexp.MustCompile(`\b(bf-[a-z-]+)((?:[^|;&\n]|\\e?\n)*)`)
	for where, blocks := range code {
		for _, c := range command.FindAllStringSubmatch(strings.Join(blocks, "\n"), -1) {
			if known[c[1]] == nil {
				continue // a page, or a word
			}
			for _, o := range option.FindAllStringSubmatch(c[2], -1) {
				if n++; !slices.Contains(known[c[1]], o[1]) {
					t.Errorf("%s: %s has no option %s", where, c[1], o[1])
				}
			}
		}
	}
	if n < 60 {
		t.Errorf("%d options in command lines: an expression is out of date", n)
	}
}

// TestManualStatus provokes the exit statuses of each tool that need no servers,
// and compares them with those of its page.
func TestManualStatus(t *testing.T) {
	silent := silence(t)
	psql := "PATH=" + testdb.Installs(t)[0].BinDir + string(os.PathListSeparator) + testdb.Bin(t) +
		string(os.PathListSeparator) + os.Getenv("PATH")
	// These need two sides that differ: see TestVerify and TestBackfill.
	differs := []string{"bf-backfill", "bf-verify"}
	pages := pages(t)
	for tool, path := range tools(t) {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(pages, func(p page) bool { return p.name == tool })
			if i < 0 {
				t.Fatal("no page")
			}
			start := func(conn string, args ...string) *exec.Cmd {
				cmd := (*pair)(nil).command(t, path, args...)
				cmd.Env = append(cmd.Env, psql, "BF_SOURCE="+conn, "BF_TARGET="+conn)
				return cmd
			}
			var args []string
			if tool == "bf-stage" || tool == "bf-backfill" {
				args = []string{"--until", "5"}
			}
			for want, cmd := range map[int]*exec.Cmd{
				0: start("", "--help"), 1: start("nonsense", args...), 2: start("", "--no-such-flag"),
			} {
				cmd.Stdin = strings.NewReader("nonsense\n")
				if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
					t.Errorf("%q: %v, wanted exit status %d", cmd.Args[1:], err, want)
				}
			}
			want := []int{0, 1, 2}
			if slices.Contains(differs, tool) {
				want = append(want, 3)
			}
			// On a busy machine a tool may not have got as far as to hear a signal.
			for _, pause := range []time.Duration{time.Second, 5 * time.Second} {
				if status := stopTwice(t, start(silent, args...), pause); status != -1 { // not by the signal
					want = append(want, status)
					break
				}
			}
			var got []int
			for _, m := range regexp.MustCompile(`(?m)^\.It (\d+)$`).FindAllStringSubmatch(pages[i].part("Sh",
				"EXIT STATUS"), -1) {
				n, _ := strconv.Atoi(m[1])
				got = append(got, n)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the page lists %d, it ends with %d", got, want)
			}
		})
	}
}

// silence returns a connection string of a server that takes connections and
// never answers.
func silence(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return "postgres://u@" + l.Addr().String() + "/x?sslmode=disable"
}

// stopTwice starts a tool that will wait, sends it TERM twice, each after a pause,
// and returns its exit status.
func stopTwice(t *testing.T, cmd *exec.Cmd, pause time.Duration) int {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		time.Sleep(pause)
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// TestManualEnvironment looks for the environment variables that are described.
func TestManualEnvironment(t *testing.T) {
	known := variables(t)
	own := regexp.MustCompile(`\[env: (\w+)\]|\b(BF_\w+)`)
	for _, p := range pages(t) {
		var listed []string
		for _, m := range regexp.MustCompile(`(?m)^\.(?:It )?Ev (.*)$`).FindAllStringSubmatch(p.source, -1) {
			listed = append(listed, regexp.MustCompile(`[A-Z]\w+`).FindAllString(m[1], -1)...)
		}
		for _, v := range listed {
			if !known[v] {
				t.Errorf("%s: nothing reads %s", p.path, v)
			}
		}
		if p.section != "1" {
			continue
		}
		help := (*pair)(nil).ok(t, "", tools(t)[p.name], "--help")
		section := p.part("Sh", "ENVIRONMENT")
		for _, m := range own.FindAllStringSubmatch(help, -1) {
			if v := m[1] + m[2]; !strings.Contains(section, v) {
				t.Errorf("%s: ENVIRONMENT lacks %s", p.path, v)
			}
		}
	}
	for _, v := range regexp.MustCompile(`\b(?:BF|BENCH|CHAOS)_\w+`).FindAllString(readme(t), -1) {
		if !known[v] {
			t.Errorf("README: nothing reads %s", v)
		}
	}
}

// variables are the names of environment variables in our sources and in those
// of pgx, which reads libpq's.
func variables(t *testing.T) map[string]bool {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/jackc/pgx/v5").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(strings.TrimSpace(string(out)), "pgconn", "config.go")}
	for _, pattern := range []string{"../../Makefile", "../../scripts/*", "../../cmd/*/*.go", "../*/*.go"} {
		found, _ := filepath.Glob(pattern)
		paths = append(paths, found...)
	}
	known := map[string]bool{}
	for _, path := range paths {
		if path == "../e2e/manual_test.go" || strings.HasSuffix(path, ".1") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range regexp.MustCompile(`\b[A-Z]{2,}[A-Z_]*\b`).FindAllString(string(b), -1) {
			known[v] = true
		}
	}
	return known
}

// TestReadme follows the links of the README and counts its words: it is for
// the first hour, the manual for the rest.
func TestReadme(t *testing.T) {
	text := readme(t)
	if n := len(strings.Fields(text)); n > 1300 {
		t.Errorf("the README has %d words: put what is not for the first hour into the manual", n)
	}
	for _, l := range regexp.MustCompile(`\]\(([^)]*)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat("../../" + l[1]); err != nil {
			t.Error(err)
		}
	}
	for _, p := range pages(t) {
		if !strings.Contains(text, "("+strings.TrimPrefix(p.path, "../../")+")") {
			t.Errorf("the README does not lead to %s", p.path)
		}
	}
}

// TestMap looks for the files and names that lib/README.md names.
func TestMap(t *testing.T) {
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`(\\w+/[\\w./-]+)`").FindAllStringSubmatch(string(b), -1) {
		_, here := os.Stat("../" + m[1])
		if _, err := os.Stat("../../" + m[1]); err != nil && here != nil {
			t.Error(here)
		}
	}
	// By package and by type: queue.Claim, Loader.Load.
	known := map[string]bool{}
	paths, _ := filepath.Glob("../*/*.go")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (?:\(\w+ \*?(\w+)\) )?(\w+)`).FindAllStringSubmatch(string(b),
			-1) {
			of := m[1]
			if of == "" {
				of = filepath.Base(filepath.Dir(path))
			}
			known[of+"."+m[2]] = true
		}
		for _, m := range regexp.MustCompile(`(?m)^(?:type |var |const |\t)(\w+)`).FindAllStringSubmatch(string(b),
			-1) {
			known[filepath.Base(filepath.Dir(path))+"."+m[1]] = true // types and constants
		}
	}
	n := 0
	for _, m := range regexp.MustCompile("`(\\w+)\\.(\\w+)`").FindAllStringSubmatch(string(b), -1) {
		if m[1] == "__backfill" {
			continue
		}
		if n++; !known[m[1]+"."+m[2]] {
			t.Errorf("lib/README.md: there is no %s.%s", m[1], m[2])
		}
	}
	if n < 20 {
		t.Errorf("%d names: an expression is out of date", n)
	}
}
