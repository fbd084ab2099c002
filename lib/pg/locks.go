package pg

// LockClass is the first key of an advisory lock; the second one identifies the
// object. All advisory locks of bf are listed here, because they are global to
// the database: two meanings of one pair of keys would block each other.
type LockClass int32

// The classes, and what their second key is. iota: no two are the same.
const (
	// LockTask: a lane has handed a task out. The task's number.
	LockTask LockClass = 0x6266 + iota // "bf"
	// LockPassed: a bf-load has skipped a task (shared). The task's number.
	LockPassed
	// LockTurn: the turn to wait for a lock that the application wants, too. 0.
	LockTurn
	// LockClear: rows are deleted from a compressed chunk. The chunk's number.
	LockClear
	// LockSweep: a statement locks every chunk of a hypertable. The hypertable's
	// number.
	LockSweep
	// LockAggregate: a bf-caggs refreshes an aggregate. The number of its
	// materialization hypertable.
	LockAggregate
	// LockQuiet: the server compresses a chunk, and is canceled as soon as anybody
	// waits for it. The chunk's number.
	LockQuiet
	// LockInHand: a bf-load or bf-verify has a task in hand (shared: it keeps nobody
	// off, it tells who watches). The task's number.
	LockInHand
)
