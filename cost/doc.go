// Package cost says what a run asks of AWS, and what that costs.
//
//	Job (tasks, groups, merges, ...) --Count--> Sheet: requests by step and operation
//	three Sheets (low, expected, high) + Prices --Estimate--> Bill
//
// Count is one pure function, used before a run (plan), while it runs (the budget) and
// after it (bench): a request that the roles make is counted here and nowhere else. A
// test runs whole jobs on the stand-ins and compares Count with what passed on the wire.
// What follows from the job alone is exact: a Range whose three numbers are equal. What
// depends on time (polls, how full a batch of messages is, renewed leases), or on the
// sizes of rows, is a range.
//
// Exact holds for a run without faults: a crash, a redelivery or a retried request costs
// more. Storage, and bytes that leave a region, are in no bill here.
package cost
