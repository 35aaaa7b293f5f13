package worker_test

const envJournalDir = "HAYRICK_TEST_JOURNAL_DIR"

func writeUntilKilled(string) {}
