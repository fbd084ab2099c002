// Package testdb gives tests real TimescaleDB servers.
//
// A test asks for a fresh database of a certain version on one of two clusters,
// "source" and "target", and gets it in some hundredths of a second:
//
//	testdb.EachVersion(t, func(t *testing.T, p testdb.Pair) {
//		source := testdb.New(t, p.Source, "source")
//		target := testdb.New(t, p.Target, "target")
//		source.Exec(t, "create table ...")
//	})
//
// The clusters are private and throwaway: they are started when first asked
// for, shared by the tests of one process, and gone with it, however it ends.
// Which PostgreSQL and TimescaleDB they run is found by scripts/testbed; see
// there for what is looked at and how to name others. The environment variable
// BF_TEST_VERSIONS (comma separated TimescaleDB versions) narrows what tests
// run on, and so does the -short flag. BF_TEST_MATRIX names the pairs instead, as
// subtests are named: "pg15-2.11.2-full-to-pg17-2.29.2-full,pg15-2.28.3-full"; with
// "all", what runs on the edges alone runs on all that was found, and every move.
package testdb

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Install is one edition of one TimescaleDB version of one PostgreSQL
// installation.
type Install struct {
	BinDir  string // of PostgreSQL's programs
	Major   int    // of PostgreSQL
	Full    bool   // the full edition; else Apache
	Version string // of TimescaleDB; "" for those of Plain
}

// String names the install as tests do: pg15-2.28.3-full.
func (in Install) String() string {
	if in.Version == "" {
		return fmt.Sprintf("pg%d", in.Major)
	}
	edition := "apache"
	if in.Full {
		edition = "full"
	}
	return fmt.Sprintf("pg%d-%s-%s", in.Major, in.Version, edition)
}

// older orders installs by TimescaleDB version, then PostgreSQL version.
func older(a, b Install) int {
	return cmp.Or(slices.Compare(numbers(a.Version), numbers(b.Version)), cmp.Compare(a.Major, b.Major))
}

func numbers(version string) (n []int) {
	version, _, _ = strings.Cut(version, "-")
	for _, s := range strings.Split(version, ".") {
		i, _ := strconv.Atoi(s)
		n = append(n, i)
	}
	return n
}

// Installs returns what was found, full edition first, newest first. Where only
// the full edition is installed, its newest and oldest version stand in
// as Apache edition (by the setting timescaledb.license), so that this edition
// is always tested.
func Installs(t testing.TB) []Install {
	t.Helper()
	found, err := installs()
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		return few(found)
	}
	return found
}

var installs = sync.OnceValues(func() ([]Install, error) {
	if source, target := os.Getenv("BF_TEST_SOURCE"), os.Getenv("BF_TEST_TARGET"); source != "" || target != "" {
		return useGiven(source, target)
	}
	found, err := list()
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		if _, err := testbed("get"); err != nil {
			return containers(err)
		}
		if found, err = list(); err != nil {
			return nil, err
		}
	}
	if want := os.Getenv("BF_TEST_VERSIONS"); want != "" {
		all := found
		found = slices.DeleteFunc(slices.Clone(all), func(in Install) bool {
			return !slices.Contains(strings.Split(want, ","), in.Version)
		})
		if len(found) == 0 {
			return nil, fmt.Errorf("BF_TEST_VERSIONS=%s: none of these versions is among those found: %v", want, all)
		}
	}
	if !slices.ContainsFunc(found, func(in Install) bool { return !in.Full }) {
		newest, oldest := slices.MaxFunc(found, older), slices.MinFunc(found, older)
		newest.Full, oldest.Full = false, false
		found = append(found, newest)
		if oldest != newest {
			found = append(found, oldest)
		}
	}
	return found, nil
})

// Plain returns what was found of PostgreSQL in major versions other than those of
// Installs, the oldest first: for NewPlain.
func Plain(t testing.TB) (plain []Install) {
	t.Helper()
	if given != nil {
		return nil
	}
	all := Installs(t)
	out, err := testbed("plain")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		dir, major, _ := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.Atoi(major)
		if err != nil {
			t.Fatalf("testbed plain: unexpected line %q", line)
		}
		if !slices.ContainsFunc(all, func(in Install) bool { return in.Major == n }) {
			plain = append(plain, Install{BinDir: dir, Major: n, Full: true})
		}
	}
	return plain
}

// few keeps the newest and the oldest full edition and one Apache.
func few(all []Install) (few []Install) {
	for i, in := range all {
		first := i == 0 || all[i-1].Full != in.Full
		last := i == len(all)-1 || all[i+1].Full != in.Full
		if first || last && in.Full {
			few = append(few, in)
		}
	}
	return few
}

func list() ([]Install, error) {
	out, err := testbed("list")
	if err != nil {
		return nil, err
	}
	var found []Install
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("testbed list: unexpected line %q", line)
		}
		major, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, fmt.Errorf("testbed list: unexpected line %q", line)
		}
		found = append(found, Install{BinDir: f[0], Major: major, Full: f[2] == "full", Version: f[3]})
	}
	return found, nil
}

// testbed runs scripts/testbed and returns its standard output.
func testbed(args ...string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(root, "scripts", "testbed"), args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/testbed %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}

// moduleRoot finds the repository from the directory in which go test runs a
// test: that of its package.
var moduleRoot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("testdb: no go.mod above the working directory")
		}
		dir = parent
	}
})
