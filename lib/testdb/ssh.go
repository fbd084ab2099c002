package testdb

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"testing"
	"time"
)

// SSH starts an sshd of its own on a free port of the loopback address, for the user
// of the test, and returns the ssh command line to it. Without one it skips the test.
func SSH(t testing.TB) string {
	t.Helper()
	daemon := sshd(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
			filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Skipf("needs ssh-keygen: %v %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if os.Getuid() == 0 {
		os.MkdirAll("/run/sshd", 0o755) // sshd wants it of root
	}
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s/host\nAuthorizedKeysFile "+
		"%s/user.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin "+
		"yes\nPermitUserEnvironment no\n", port, dir, dir)
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "-D", "-e", "-f", filepath.Join(dir, "config"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ssh := fmt.Sprintf("ssh -i %s/user -o BatchMode=yes -o StrictHostKeyChecking=no -o "+
		"UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p %d %s@127.0.0.1", dir, port, me.Username)
	end := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("sh", "-c", ssh+" true </dev/null").CombinedOutput()
		if err == nil {
			return ssh
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(log.Name())
			t.Skipf("sshd does not let us in: %s\n%s", out, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// sshd is the path of the program, which wants to be called by it.
func sshd(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"sshd", "/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if found, err := exec.LookPath(p); err == nil {
			if found, err = filepath.Abs(found); err == nil {
				return found
			}
		}
	}
	t.Skip("needs sshd (package openssh-server)")
	panic("unreachable")
}
