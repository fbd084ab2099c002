package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestPackage makes the .deb of this machine, unpacks it into a root of its own, and
// runs what is in it.
func TestPackage(t *testing.T) {
	for _, tool := range []string{"dpkg-deb", "make", "git", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs ", tool)
		}
	}
	if testing.Short() {
		t.Skip("builds all commands again")
	}
	dir := t.TempDir()
	if out, err := exec.Command("git", "clone", "-q", "../..", dir+"/bf").CombinedOutput(); err != nil {
		t.Skipf("no repository to build from: %s", out)
	}
	make := exec.Command("make", "packages", "ARCHITECTURES="+runtime.GOARCH, "PACKAGES=deb")
	make.Dir = dir + "/bf"
	if out, err := make.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "proxy") || strings.Contains(string(out), "dial tcp") {
			t.Skipf("nfpm cannot be had here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	debs, _ := filepath.Glob(dir + "/bf/dist/*.deb")
	if len(debs) != 1 {
		t.Fatalf("packages: %q", debs)
	}
	root := dir + "/root"
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range []string{"bin/bf-stage", "bin/bf-backfill", "share/man/man1/bf-load.1", "share/man/man7/bf.7",
		"share/man/man5/bf-stream.5", "share/doc/bf/copyright", "share/bash-completion/completions/bf-backfill",
		"share/zsh/vendor-completions/_bf-chunks"} {
		if _, err := os.Stat(root + "/usr/" + f); err != nil {
			t.Error(err)
		}
	}
	version := regexp.MustCompile(`^bf-[a-z-]+ \S+ \(commit [0-9a-f]{40}, go1\S+, stream version \d+\)\n$`)
	commands, _ := filepath.Glob(root + "/usr/bin/bf-*")
	for _, path := range commands {
		cmd := exec.Command(path, "--version")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil || !version.Match(out) {
			t.Errorf("%s --version: %v, %s", path, err, out)
		}
	}
	completes(t, root, commands)
}

// completes asks bash what it completes, with the files of the package: all options
// of --help.
func completes(t *testing.T, root string, commands []string) {
	for _, path := range commands {
		name := filepath.Base(path)
		script := `. "$1/share/bash-completion/completions/$2"
			COMP_WORDS=("$2" -) COMP_CWORD=1
			"_${2//-/_}"; printf '%s\n' "${COMPREPLY[@]}"`
		cmd := exec.Command("bash", "-c", script, "_", root+"/usr", name)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		help, err := exec.Command(path, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		want, _ := flags(string(help))
		if got := sortedStrings(lines(string(out))); !slices.Equal(got, want) {
			t.Errorf("bash completes %s with\n%q, --help has\n%q", name, got, want)
		}
		zsh, err := os.ReadFile(root + "/usr/share/zsh/vendor-completions/_" + name)
		if err != nil || !strings.HasPrefix(string(zsh), "#compdef "+name+"\n") {
			t.Errorf("zsh: %v", err)
		}
		for _, f := range want {
			if !regexp.MustCompile(`\)` + f + `[=+]?\[`).Match(zsh) {
				t.Errorf("zsh does not complete %s of %s", f, name)
			}
		}
	}
}
