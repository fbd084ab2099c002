package testdb

import (
	"testing"
	"time"
)

// Standby starts a hot standby of d's server and returns the same database
// there; it ends with the test. What was committed on d before is there; for
// what comes later see CatchUp.
func Standby(t testing.TB, d *DB) *DB {
	t.Helper()
	if d.Install.BinDir == "" {
		t.Skip("needs a server of its own, and only databases were named")
	}
	primary := d.Server
	s, err := place(primary.Install, "standby", options{})
	if err != nil {
		t.Fatal(err)
	}
	s.primary = primary
	if err := chown(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Install.run("pg_basebackup", "--pgdata="+s.data(), "--dbname="+primary.adminURI(""),
		"--write-recovery-conf", "--checkpoint=fast", "--no-sync"); err != nil {
		t.Fatal(err)
	}
	s.opts.config = []string{"unix_socket_directories = '" + s.dir + "'", "port = 5432", "listen_addresses = ''"}
	if err := s.configure(); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	s.own(t)
	standby := s.open(t, d.Install, d.Name)
	standby.CatchUp(t)
	return standby
}

// CatchUp waits until a standby has replayed all that its primary has written.
func (d *DB) CatchUp(t testing.TB) {
	t.Helper()
	primary := d.Server.primary.open(t, d.Install, d.Name)
	// A record of our own, as the end of what others wrote may be a page
	// boundary, which a standby does not report.
	var lsn string
	primary.Query1(t, &lsn, "select pg_create_restore_point('catch up')::text")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var there bool
		d.Query1(t, &there, "select pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn)
		if there {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("standby does not reach %s in %v", lsn, patience)
		}
	}
}
