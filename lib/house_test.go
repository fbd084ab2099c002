// Package lib holds no code: this is the test of the rules that lib/README.md
// states for the packages below.
package lib

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// row is a line of the table of packages.
type row struct {
	name    string
	imports []string
}

// table reads the table of packages of README.md, in its order.
func table(t *testing.T) (rows []row) {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## Packages\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z0-9]+) \| .* \| *([a-z0-9, `+
		`]*?) *\|$`).FindAllStringSubmatch(section, -1) {
		if m[1] == "package" { // the head
			continue
		}
		r := row{name: m[1]}
		for _, i := range strings.Split(m[2], ", ") {
			if i != "" {
				r.imports = append(r.imports, i)
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// helpers are for tests and measurements: nothing of the commands imports them.
var helpers = []string{"bench", "chaos", "e2e", "testdb"}

// imports returns what each package imports of lib, by its path below the
// module.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "bf/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		words := strings.Fields(line)
		name := strings.TrimPrefix(words[0], "bf/")
		m[name] = nil
		for _, w := range words[1:] {
			if i, ok := strings.CutPrefix(w, "bf/"); ok {
				m[name] = append(m[name], strings.TrimPrefix(i, "lib/"))
			}
		}
		slices.Sort(m[name])
	}
	return m
}

// TestImports: a package imports what its line of the table says, and that is
// above it in the table. The commands import anything but the helpers; nothing
// imports a command.
func TestImports(t *testing.T) {
	rows, actual := table(t), imports(t)
	if len(rows) < 10 {
		t.Fatalf("%d packages in the table of README.md: the expression is out of date", len(rows))
	}
	var above []string
	for _, r := range rows {
		got, there := actual["lib/"+r.name]
		if !there {
			t.Errorf("README.md lists %s, and there is no such package", r.name)
		}
		if !slices.Equal(got, r.imports) {
			t.Errorf("%s imports %q, README.md says %q", r.name, got, r.imports)
		}
		for _, i := range got {
			if !slices.Contains(above, i) {
				t.Errorf("%s imports %s, which is not above it in README.md", r.name, i)
			}
		}
		above = append(above, r.name)
	}
	for name, got := range actual {
		pkg, isLib := strings.CutPrefix(name, "lib/")
		if isLib && !slices.Contains(above, pkg) && !slices.Contains(helpers, pkg) {
			t.Errorf("README.md does not list package %s", pkg)
		}
		if slices.Contains(helpers, pkg) {
			continue
		}
		for _, i := range got {
			if slices.Contains(helpers, i) || strings.HasPrefix(i, "cmd/") {
				t.Errorf("%s imports %s", name, i)
			}
		}
	}
}

// TestBackfillSQL: only package queue has SQL on the tables of __backfill.
func TestBackfillSQL(t *testing.T) {
	tables := regexp.MustCompile(`\b__backfill\.(task|aggregate|job|version)\b`)
	comment := regexp.MustCompile(`(?m)(//|--).*$`)
	n := 0
	for _, pattern := range []string{"*/*.go", "*/*.sql", "../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found := tables.Match(comment.ReplaceAll(b, nil))
			switch pkg := filepath.Base(filepath.Dir(f)); {
			case strings.HasSuffix(f, "_test.go") || slices.Contains(helpers, pkg):
			case pkg == "queue" && found:
				n++
			case found:
				t.Errorf("%s has SQL on __backfill, which is package queue's business", f)
			}
		}
	}
	if n < 5 {
		t.Errorf("%d files of package queue have SQL on __backfill: the expression is out of date", n)
	}
}

// TestSizes: what a reader has to keep in mind at once is bounded. A function has at most
// 60 lines and 5 parameters, a type 20 methods; a test, with its table of cases, 100 lines
// and 6 parameters, of which one is t, and a file of tests 500 lines.
func TestSizes(t *testing.T) {
	methods := map[string]int{}
	n := 0
	for _, pattern := range []string{"*/*.go", "../cmd/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			test, most, parameters := strings.HasSuffix(f, "_test.go"), 60, 5
			if test {
				most, parameters = 100, 6
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, f, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if lines := set.Position(file.FileEnd).Line; test && lines > 500 {
				t.Errorf("%s has %d lines", f, lines)
			}
			for _, d := range file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				n++
				if lines := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; lines > most {
					t.Errorf("%s: %s has %d lines", f, fn.Name, lines)
				}
				if p := fn.Type.Params.NumFields(); p > parameters {
					t.Errorf("%s: %s has %d parameters", f, fn.Name, p)
				}
				if fn.Recv != nil && !test {
					methods[filepath.Dir(f)+"."+receiver(fn.Recv.List[0].Type)]++
				}
			}
		}
	}
	for name, m := range methods {
		if m > 20 {
			t.Errorf("%s has %d methods", name, m)
		}
	}
	if n < 1000 || methods["tsdb.DB"] == 0 {
		t.Errorf("%d functions, methods %v: the patterns are out of date", n, methods)
	}
}

// receiver is the name of a receiver's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// TestASCII: SQL is ASCII, its comments as well. The server converts all that it is sent to
// the encoding of its database, which may not have the character.
func TestASCII(t *testing.T) {
	n := 0
	if err := filepath.WalkDir(".", func(f string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(f, ".sql") || strings.Contains(f, "testdata") {
			return err
		}
		b, err := os.ReadFile(f)
		if i := bytes.IndexFunc(b, func(r rune) bool { return r > unicode.MaxASCII }); i >= 0 {
			t.Errorf("%s: not ASCII: %.20q", f, b[i:])
		}
		n++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n < 50 {
		t.Errorf("%d files found", n)
	}
}

// TestColumns: a line of Go, SQL or shell has at most 120 columns, a tab being 4. The
// exception is a field with a tag: reflect wants the tag in one literal.
func TestColumns(t *testing.T) {
	n := 0
	look := func(f string, d fs.DirEntry, err error) error {
		goFile, script := strings.HasSuffix(f, ".go"), strings.HasPrefix(f, "../scripts/") && filepath.Ext(f) == ""
		if err != nil || d.IsDir() || !goFile && !script && !strings.HasSuffix(f, ".sql") {
			return err
		}
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		var tags map[int]bool
		if goFile {
			tags = tagged(t, f)
		}
		n++
		for i, line := range strings.Split(string(b), "\n") {
			columns := utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
			if columns > 120 && !tags[i+1] {
				t.Errorf("%s:%d has %d columns", f, i+1, columns)
			}
		}
		return nil
	}
	for _, dir := range []string{".", "../cmd", "../scripts"} {
		if err := filepath.WalkDir(dir, look); err != nil {
			t.Fatal(err)
		}
	}
	if n < 300 {
		t.Errorf("%d files: the directories or the names of files have changed", n)
	}
}

// tagged has the lines of a file on which a field has a tag.
func tagged(t *testing.T, f string) map[int]bool {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, f, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[int]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if field, ok := n.(*ast.Field); ok && field.Tag != nil {
			lines[set.Position(field.Tag.Pos()).Line] = true
		}
		return true
	})
	return lines
}
