package testdb

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a cluster: a private one, whose superuser is postgres and which
// trusts every connection unless WithHBA says otherwise, or one on which the
// user lets us make databases.
type Server struct {
	Install Install // how it was started; a database may run another version
	Port    int     // on 127.0.0.1 with WithTCP or WithTLS, else 0

	given   string  // connection string of a database of the user's server, else ""
	primary *Server // of a standby

	dir  string // holds data/, the log and the socket
	opts options

	mu        sync.Mutex
	exited    chan struct{} // closed when the postmaster has ended
	pid       int
	databases int                     // ever made, for their names
	templates map[string]func() error // by version
}

type options struct {
	config []string
	hba    []string
	tcp    bool
	tls    bool
	jobs   bool
}

// Option changes how NewServer configures a cluster.
type Option func(*options)

// WithConfig adds lines to postgresql.conf.
func WithConfig(lines ...string) Option {
	return func(o *options) { o.config = append(o.config, lines...) }
}

// WithHBA replaces pg_hba.conf. The socket stays open to postgres.
func WithHBA(lines ...string) Option {
	return func(o *options) { o.hba = append([]string{"local all postgres trust"}, lines...) }
}

// WithTCP makes the server listen on a free port of the loopback address, and
// DB.ConnString use it.
func WithTCP() Option { return func(o *options) { o.tcp = true } }

// WithTLS is WithTCP with a certificate for 127.0.0.1, signed by RootCert.
func WithTLS() Option { return func(o *options) { o.tcp, o.tls = true, true } }

// WithJobs makes TimescaleDB's background jobs run. Elsewhere they are off.
func WithJobs() Option { return func(o *options) { o.jobs = true } }

// NewServer starts a cluster of the test's own and stops it when the test ends.
// Use it where a test stops the server or needs an option; else New, which is
// faster.
func NewServer(t testing.TB, in Install, name string, opts ...Option) *Server {
	t.Helper()
	if in.BinDir == "" {
		t.Skip("needs a server of its own, and only databases were named")
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s, err := create(in, name, o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	s.own(t)
	return s
}

// own ends the server with the test.
func (s *Server) own(t testing.TB) {
	t.Cleanup(func() {
		s.log().onFailure(t, s.Install, 0)
		if err := s.stop(syscall.SIGQUIT); err != nil {
			t.Error(err)
		}
		os.RemoveAll(s.dir)
	})
}

// Stop stops the server in one of pg_ctl's ways: "smart", "fast" or
// "immediate"; the last is a crash.
func (s *Server) Stop(t testing.TB, mode string) {
	t.Helper()
	sig, ok := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT,
		"immediate": syscall.SIGQUIT}[mode]
	if !ok {
		t.Fatalf("no stop mode %q", mode)
	}
	if err := s.stop(sig); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server again.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		s.log().onFailure(t, s.Install, 0)
		t.Fatal(err)
	}
}

// shared are the clusters of New: one for each side of each bindir and edition.
var shared = struct {
	sync.Mutex
	m map[string]func() (*Server, error)
}{m: map[string]func() (*Server, error){}}

func sharedServer(in Install, side string) (*Server, error) {
	key := fmt.Sprint(in.BinDir, " ", in.Full, " ", side)
	shared.Lock()
	get, ok := shared.m[key]
	if !ok {
		get = sync.OnceValues(func() (*Server, error) {
			if in.BinDir == "" {
				return &Server{Install: in, given: given[side]}, nil
			}
			s, err := create(in, side, options{})
			if err != nil {
				return nil, err
			}
			return s, s.start()
		})
		shared.m[key] = get
	}
	shared.Unlock()
	return get()
}

// create makes a cluster but does not start it.
func create(in Install, name string, o options) (*Server, error) {
	s, err := place(in, name, o)
	if err != nil {
		return nil, err
	}
	if _, err := testbed("init", in.BinDir, s.dir); err != nil {
		return nil, err
	}
	return s, s.configure()
}

// place makes the directory of a cluster.
func place(in Install, name string, o options) (*Server, error) {
	dir, err := base()
	if err != nil {
		return nil, err
	}
	s := &Server{Install: in, opts: o, templates: map[string]func() error{}}
	if s.dir, err = os.MkdirTemp(dir, name+"."); err != nil {
		return nil, err
	}
	if o.tcp {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		s.Port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	return s, nil
}

// configure appends what differs from the configuration of "testbed init".
func (s *Server) configure() error {
	conf := []string{"max_wal_size = 256MB"} // the data may be in memory
	if !s.Install.Full {
		conf = append(conf, "timescaledb.license = apache")
	}
	if s.opts.tcp {
		conf = append(conf, "listen_addresses = '127.0.0.1'", fmt.Sprint("port = ", s.Port))
	}
	if s.opts.tls {
		if err := certificates(s.dir).issue(); err != nil {
			return err
		}
		conf = append(conf, "ssl = on", "ssl_cert_file = '"+certificates(s.dir).cert()+"'",
			"ssl_key_file = '"+certificates(s.dir).key()+"'")
	}
	if s.opts.jobs {
		conf = append(conf, "timescaledb.max_background_workers = 16", "max_worker_processes = 32")
	}
	conf = append(conf, s.opts.config...)
	f, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, strings.Join(conf, "\n")); err != nil {
		return err
	}
	if s.opts.hba == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(strings.Join(s.opts.hba, "\n")+"\n"), 0)
}

func (s *Server) data() string   { return filepath.Join(s.dir, "data") }
func (s *Server) log() serverLog { return serverLog(filepath.Join(s.dir, "log")) }

// start returns when the server accepts connections.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := os.OpenFile(string(s.log()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := s.Install.command("postgres", "-D", s.data())
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	s.pid, s.exited = cmd.Process.Pid, exited
	for deadline := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		conn, err := pgx.Connect(ctx, s.adminURI("postgres"))
		cancel()
		if err == nil {
			conn.Close(context.Background())
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("server in %s does not come up: %w", s.dir, err)
		}
		select {
		case <-exited:
			log, _ := os.ReadFile(string(s.log()))
			return fmt.Errorf("server in %s (%s) did not start:\n%s", s.dir, s.Install, log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop waits for the server's end; a stopped server is left alone.
func (s *Server) stop(sig syscall.Signal) error {
	if !s.running() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := syscall.Kill(s.pid, sig); err != nil {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("server in %s does not stop", s.dir)
	}
}

func (s *Server) running() bool {
	if s.given != "" {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.exited:
		return false
	default:
		return s.pid != 0
	}
}

// adminURI connects as superuser, whatever WithHBA and WithTCP say. It is a
// URI because those have no blanks, which shells would split.
func (s *Server) adminURI(database string) string {
	if s.given != "" {
		return s.uri("postgres", database)
	}
	uri := "postgres://postgres@/" + database + "?host=" + s.dir
	if s.Port != 0 {
		uri += fmt.Sprint("&port=", s.Port)
	}
	return uri
}

// uri is what tests hand to the tools.
func (s *Server) uri(user, database string) string {
	if s.given != "" {
		return redirect(s.given, user, database)
	}
	user = url.User(user).String()
	switch {
	case s.opts.tls:
		return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=verify-full&sslrootcert=%s", user, s.Port, database,
			s.RootCert())
	case s.opts.tcp:
		return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", user, s.Port, database)
	}
	return "postgres://" + user + "@/" + database + "?host=" + s.dir
}

// serverLog is the file that a server logs to.
type serverLog string

// size tells onFailure where a test's part of the log begins.
func (l serverLog) size() int64 {
	fi, err := os.Stat(string(l))
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (l serverLog) onFailure(t testing.TB, in Install, from int64) {
	if !t.Failed() {
		return
	}
	const most = 64 << 10
	f, err := os.Open(string(l))
	if err != nil {
		return
	}
	defer f.Close()
	buf := make([]byte, most)
	n, _ := f.ReadAt(buf, max(from, l.size()-most))
	if n > 0 {
		t.Logf("log of server %s (%s):\n%s", filepath.Base(filepath.Dir(string(l))), in, buf[:n])
	}
}

// run runs one of PostgreSQL's programs to its end.
func (in Install) run(program string, args ...string) error {
	cmd, err := in.command(program, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %v\n%s", cmd.Path, err, out)
	}
	return nil
}

// command prepares one of PostgreSQL's programs: in a session of its own, deaf
// to ^C on the terminal, and as nobody for root, whom PostgreSQL refuses.
func (in Install) command(program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(filepath.Join(in.BinDir, program), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	if os.Getuid() == 0 {
		uid, gid, err := nobody()
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd, nil
}

// chown gives a file to whom command runs as.
func chown(path string) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := nobody()
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

func nobody() (uid, gid int, err error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}
