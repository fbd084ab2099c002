package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Bin builds the commands, once, and returns their directory.
func Bin(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Path puts the commands first in PATH for the rest of the test.
func Path(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", Bin(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
}

var build = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := base()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return "", err
	}
	// Without what only a debugger reads they are linked in half the time.
	args := append([]string{"build", "-ldflags=-s -w", "-o", bin}, buildFlags...)
	cmd := exec.Command("go", append(args, "./cmd/...")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/...: %v\n%s", err, out)
	}
	return bin, nil
})
