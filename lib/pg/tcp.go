package pg

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// tcp holds the limits by which a dead peer is detected (power failure, broken
// network), so that a lane does not wait for ever. A healthy COPY may be silent
// for any time: the peer's kernel answers the probes.
type tcp struct {
	keepalives            bool
	idle, interval, count int           // seconds, seconds, probes; 0 as the system has it
	userTimeout           time.Duration // see setUserTimeout; 0 as the system has it
}

// tcpParams takes what libpq calls keepalives, keepalives_idle,
// keepalives_interval, keepalives_count and tcp_user_timeout out of the
// parameters of a connection string. pgx knows none of them and would hand them
// to the server, which refuses them.
func tcpParams(side Side, params map[string]string) (t tcp, err error) {
	take := func(name string, ours int) int {
		s, set := params[name]
		delete(params, name)
		if !set || err != nil {
			return ours
		}
		n, e := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
		if e != nil {
			err = fmt.Errorf("%s is not a number", name)
		}
		return int(n)
	}
	t.keepalives = take("keepalives", 1) != 0
	t.idle, t.interval, t.count = take("keepalives_idle", 20), take("keepalives_interval", 10),
		take("keepalives_count", 4)
	// Where this limit is set, Linux goes by it instead of counting unanswered
	// probes, and it also gives up a connection whose peer answers but takes no
	// data for so long. What goes to a source are small queries; a target that
	// is busy in the middle of a COPY is healthy, so it gets much more time.
	ours := t.silence()
	if side == Target {
		ours = 5 * time.Minute
	}
	t.userTimeout = time.Duration(take("tcp_user_timeout", int(ours.Milliseconds()))) * time.Millisecond
	return t, err
}

func (t tcp) dialer(timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout, KeepAlive: -1}
	if t.keepalives {
		system := func(n int) int { // to net, 0 is its own default
			if n == 0 {
				return -1
			}
			return n
		}
		seconds := func(n int) time.Duration { return time.Duration(system(n)) * time.Second }
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: seconds(t.idle), Interval: seconds(t.interval),
			Count: system(t.count)}
	}
	if t.userTimeout > 0 {
		d.Control = setUserTimeout(t.userTimeout)
	}
	return d
}

// settings fills in settings.sql, so that the server detects a dead client by the
// same limits. Without a limit for unacknowledged data, a server that is sending
// an answer would keep the session's locks for as long as the kernel retries: a
// quarter of an hour.
func (t tcp) settings(sql string, locks bool) string {
	sql = strings.NewReplacer("{idle}", strconv.Itoa(t.idle), "{interval}", strconv.Itoa(t.interval),
		"{count}", strconv.Itoa(t.count), "{lock_timeout}", LockTimeout.String()).Replace(sql)
	if locks {
		sql += fmt.Sprintf("; set tcp_user_timeout = %d", t.silence().Milliseconds())
	}
	return sql
}

// silence is for how long the probes go on until a peer is given up.
func (t tcp) silence() time.Duration {
	return time.Duration(t.idle+t.interval*t.count) * time.Second
}
