package main

import (
	"fmt"

	"bf/lib/cli"
	"bf/lib/stage"
)

// loose says what will be left uncompressed, how much space that takes, and what helps.
func loose(l *stage.Loose) string {
	chunks, will := fmt.Sprintf("%d compressed chunks", l.Chunks), "will be"
	if l.Chunks == 1 {
		chunks = "1 compressed chunk"
	}
	if l.Maybe {
		will = "may be"
	}
	s := fmt.Sprintf("%s: %s %s left uncompressed (%s)", l.Of, chunks, will, l.Why.Says())
	if l.Uncompressed > 0 {
		s += fmt.Sprintf(": %s become about %s", cli.Bytes(l.Compressed), cli.Bytes(l.Uncompressed))
	}
	return s + "; this helps: " + l.Helps
}
