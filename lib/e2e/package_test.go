package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
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
}
