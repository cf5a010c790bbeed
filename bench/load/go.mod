module scute/bench/load

go 1.26
