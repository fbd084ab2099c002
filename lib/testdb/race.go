//go:build race

package testdb

// buildFlags: a test that looks for data races looks for them in the commands
// it runs as well; one that has any exits with status 66.
var buildFlags = []string{"-race"}
