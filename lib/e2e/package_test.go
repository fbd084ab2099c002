package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestPackage makes the packages, looks at what they say of themselves and at each of
// their files, installs them into roots of their own, and runs what is in them.
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
	make := exec.Command("make", "packages")
	make.Dir = dir + "/bf"
	if out, err := make.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "proxy") || strings.Contains(string(out), "dial tcp") {
			t.Skipf("nfpm cannot be had here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	for arch, rpm := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
		t.Run("deb "+arch, func(t *testing.T) {
			path := made(t, dir, "*_"+arch+".deb")
			says(t, []string{"dpkg-deb", "-f", path, "Package", "Architecture", "Depends", "Section"},
				"Package: bf\nArchitecture: "+arch+"\nDepends: bash\nSection: database\n")
			scripts := t.TempDir()
			says(t, []string{"dpkg-deb", "-e", path, scripts}, "")
			for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
				if _, err := os.Stat(filepath.Join(scripts, name)); err == nil {
					t.Errorf("it has a script: %s", name)
				}
			}
			holds(t, answer(t, "dpkg-deb", "-c", path), `^(\S+) (\S+) .* \./(\S+)$`, "zsh/vendor-completions")
			root := t.TempDir()
			says(t, []string{"dpkg-deb", "-x", path, root}, "")
			runs(t, root, arch)
		})
		t.Run("rpm "+arch, func(t *testing.T) {
			if _, err := exec.LookPath("rpm"); err != nil {
				t.Skip("no rpm here")
			}
			path := made(t, dir, "*."+rpm+".rpm")
			about := answer(t, "rpm", "-qp", "--qf", `%{NAME} %{ARCH} %{LICENSE}\n`, "--requires", "--scripts", path)
			var left []string
			for _, l := range lines(about) {
				if !strings.HasPrefix(l, "rpmlib(") {
					left = append(left, l)
				}
			}
			got := strings.Join(left, "\n")
			if got != "bf "+rpm+" Apache-2.0\nbash" && got != "bash\nbf "+rpm+" Apache-2.0" {
				t.Errorf("it says %q", got)
			}
			holds(t, answer(t, "rpm", "-qlvp", path), `^(\S+) +\d+ (\S+ +\S+) .* /(\S+)$`, "zsh/site-functions")
			if os.Getuid() != 0 {
				t.Skip("only root installs an .rpm")
			}
			root := t.TempDir()
			answer(t, "rpm", "--root", root, "--nodeps", "--ignorearch", "-i", path) // Debian's warns of itself
			runs(t, root, arch)
		})
	}
}

// made is the one package of that name.
func made(t *testing.T, dir, pattern string) string {
	t.Helper()
	paths, _ := filepath.Glob(dir + "/bf/dist/" + pattern)
	if len(paths) != 1 {
		t.Fatalf("packages %s: %q", pattern, paths)
	}
	return paths[0]
}

func answer(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func says(t *testing.T, command []string, want string) {
	t.Helper()
	if got := answer(t, command[0], command[1:]...); got != want {
		t.Errorf("%q says %q, want %q", command, got, want)
	}
}

// holds looks at a list of the files of a package, each a line of mode, owner and
// name, and at each of what is needed.
func holds(t *testing.T, list, line, zsh string) {
	t.Helper()
	var there []string
	for _, l := range lines(list) {
		m := regexp.MustCompile(line).FindStringSubmatch(l)
		if m == nil {
			t.Errorf("a file that is listed as %q", l)
			continue
		}
		mode := "-rw-r--r--"
		switch {
		case strings.HasSuffix(m[3], "/"), strings.HasPrefix(m[1], "d"): // .deb, .rpm
			mode = "drwxr-xr-x"
		case strings.HasPrefix(m[3], "usr/bin/"):
			mode = "-rwxr-xr-x"
		}
		if m[1] != mode || !regexp.MustCompile(`^root[/ ]+root$`).MatchString(m[2]) {
			t.Errorf("%s: mode %s, owner %s", m[3], m[1], m[2])
		}
		there = append(there, m[3])
	}
	want := []string{"usr/share/doc/bf/copyright", "usr/share/man/man7/bf.7", "usr/share/man/man5/bf-stream.5"}
	for name := range tools(t) {
		want = append(want, "usr/bin/"+name, "usr/share/man/man1/"+name+".1",
			"usr/share/bash-completion/completions/"+name, "usr/share/"+zsh+"/_"+name)
	}
	for _, f := range want {
		if !slices.Contains(there, f) && !slices.Contains(there, f+".gz") {
			t.Errorf("no %s in\n%s", f, list)
		}
	}
}

// runs runs the commands that are installed below root.
func runs(t *testing.T, root, arch string) {
	t.Helper()
	var emulator []string
	if arch != runtime.GOARCH {
		path, err := exec.LookPath(fmt.Sprintf("qemu-%s-static", map[string]string{"amd64": "x86_64",
			"arm64": "aarch64"}[arch]))
		if err != nil {
			t.Skip("no emulator here for what is not this machine's")
		}
		emulator = append(emulator, path)
	}
	version := regexp.MustCompile(`^bf-[a-z-]+ \S+ \(commit [0-9a-f]{40}, go1\S+, stream version \d+\)\n$`)
	commands, _ := filepath.Glob(root + "/usr/bin/bf-*")
	if len(commands) != len(tools(t)) {
		t.Errorf("commands: %q", commands)
	}
	for _, path := range commands {
		if emulator != nil && filepath.Base(path) == "bf-backfill" { // a script
			continue
		}
		args := append(slices.Clone(emulator), path, "--version")
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil || !version.Match(out) {
			t.Errorf("%s --version: %v, %s", path, err, out)
		}
	}
}
