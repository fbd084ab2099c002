package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// server is one of the two sides.
type server struct {
	uri        string
	conn       *pgx.Conn
	postmaster int // 0: on another machine, its CPU time is not known
}

func connect(ctx context.Context, uri string) (*server, error) {
	conn, err := pgx.Connect(ctx, uri)
	if err != nil {
		return nil, err
	}
	s := &server{uri: uri, conn: conn}
	// Ours, if the process of that number is a child of a postmaster and says
	// what the server's data directory is.
	var dir string
	if conn.QueryRow(ctx, "show data_directory").Scan(&dir) == nil {
		parent := stat(int(conn.PgConn().PID())).parent
		if wd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", parent)); err == nil && wd == dir {
			s.postmaster = parent
		}
	}
	return s, nil
}

func (s *server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if _, err := s.conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("%w in: %.200s", err, sql)
	}
	return nil
}

func (s *server) strings(sql string) ([]string, error) {
	rows, err := s.conn.Query(context.Background(), sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// process is what /proc says of one: its parent and the CPU time of it and of
// its children that have ended.
type process struct {
	parent int
	cpu    time.Duration
}

const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux

func stat(pid int) (p process) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the state on, field 3
	p.parent, _ = strconv.Atoi(f[1])
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(f[i])
		p.cpu += time.Duration(n) * tick
	}
	return p
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpu is what the postmaster and all its children have used, those that have
// ended included. A child that ends while they are added up would be missing:
// hence a sum counts only when the next one is about the same.
func (s *server) cpu() time.Duration {
	sum := s.sum()
	for range 100 {
		time.Sleep(10 * time.Millisecond)
		again := s.sum()
		if d := again - sum; d >= 0 && d <= 2*tick {
			return again
		}
		sum = again
	}
	return sum
}

func (s *server) sum() time.Duration {
	if s.postmaster == 0 {
		return 0
	}
	sum := stat(s.postmaster).cpu
	pids, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range pids {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if p := stat(pid); p.parent == s.postmaster {
			sum += p.cpu
		}
	}
	return sum
}

// settle waits for the end of the backends of others: what they have used shows
// with the postmaster when it has heard of it.
func (s *server) settle() {
	for range 100 {
		rest, err := s.strings("select pid::text from pg_stat_activity where backend_type = 'client backend' " +
			"and pid <> pg_backend_pid()")
		time.Sleep(20 * time.Millisecond)
		if err != nil || len(rest) == 0 {
			return
		}
	}
}

// sample is one measurement.
type sample struct {
	wall, source, target, client time.Duration
	memory                       []int64 // peaks of the processes of a pipe, in its order, in KiB
}

// times scales a sample of a part up to the whole.
func (s sample) times(f float64) sample {
	for _, d := range []*time.Duration{&s.wall, &s.source, &s.target, &s.client} {
		*d = time.Duration(float64(*d) * f)
	}
	return s
}

// measure runs processes and says what they cost everybody.
func (b *bench) measure(run func(m *meter) error) (sample, error) {
	m := &meter{env: b.env}
	b.src.settle()
	b.dst.settle()
	source, target, start := b.src.cpu(), b.dst.cpu(), time.Now()
	err := run(m)
	m.wall = time.Since(start)
	b.src.settle()
	b.dst.settle()
	m.source, m.target = b.src.cpu()-source, b.dst.cpu()-target
	return m.sample, err
}

type meter struct {
	env []string
	sample
}

// pipe runs commands connected by pipes, as a shell does. A command is a list of
// arguments.
func (m *meter) pipe(stdin string, commands ...[]string) error {
	return m.pipeFrom(stdin, nil, commands)
}

// pipeTo is pipe with the output going somewhere: nil is nowhere.
func (m *meter) pipeTo(out *os.File, commands ...[]string) error {
	return m.pipeFrom("", out, commands)
}

func (m *meter) pipeFrom(stdin string, out *os.File, commands [][]string) error {
	var in *os.File
	if stdin != "" {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		go func() { io.WriteString(w, stdin); w.Close() }()
		in = r
	}
	var started []*exec.Cmd
	var messages bytes.Buffer
	for i, c := range commands {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env, cmd.Stderr = m.env, &lockedBuffer{b: &messages}
		if in != nil {
			cmd.Stdin = in
		}
		var r, w *os.File
		if i < len(commands)-1 {
			var err error
			if r, w, err = os.Pipe(); err != nil {
				return err
			}
			cmd.Stdout = w
		} else if out != nil {
			cmd.Stdout = out
		}
		err := cmd.Start()
		if in != nil {
			in.Close()
		}
		if w != nil {
			w.Close()
		}
		if err != nil {
			return err
		}
		started, in = append(started, cmd), r
	}
	var failed error
	for i, cmd := range started {
		if err := cmd.Wait(); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", cmd.Path, err)
		}
		m.client += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			if i == len(m.memory) {
				m.memory = append(m.memory, 0)
			}
			m.memory[i] = max(m.memory[i], u.Maxrss)
		}
	}
	if failed != nil {
		return fmt.Errorf("%w\n%s", failed, messages.Bytes())
	}
	return nil
}
