// Which tile comes next. S of a class is symmetric: only tiles on and above its diagonal are visited.
//
//        j ->
//      +-----+-----+-----+     Columns come in groups of kGroup tiles. Within a group the rows above the
//    i | 0 1 | 3 4 | ... |     diagonal block come first, a row of kGroup tiles at a time: their columns
//    | |   2 | 5 6 |     |     stay in the L2 cache while the rows stream through. The triangle of the
//    v +-----+-----+     |     group follows, column by column.
//      |     | 7 8 |     |
//      |     |   9 |     |     (kGroup = 2, 4 tile rows: the order of the first ten tiles)
//
// All classes share one list of tiles, class after class, so that one launch serves them all; a block
// takes every gridDim.x-th of them.
#pragma once

#include "platform.cuh"

namespace proto_engine {

constexpr int kTile = 128;  // rows and columns of a tile, for every tile loop
constexpr int kGroup = 16;  // tile columns that are visited together

struct TilePosition {
  int64_t row, column;  // in tiles
};

__host__ __device__ inline int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

// The largest n with triangle(n) <= t.
__host__ __device__ inline int64_t triangle_root(int64_t t) {
  int64_t n = static_cast<int64_t>((sqrt(8.0 * static_cast<double>(t) + 1.0) - 1.0) / 2.0);
  while (triangle(n) > t) --n;
  while (triangle(n + 1) <= t) ++n;
  return n;
}

// Tile t of the triangle(side) tiles of a class that is `side` tiles wide.
__host__ __device__ inline TilePosition triangle_tile(int64_t t, int64_t side, int64_t group = kGroup) {
  const int64_t first = triangle_root(t) / group * group;  // column of the group
  const int64_t width = side - first < group ? side - first : group;
  int64_t local = t - triangle(first);
  if (local < first * width) return {local / width, first + local % width};
  local -= first * width;
  const int64_t column = triangle_root(local);
  return {first + local - triangle(column), first + column};
}

// A sample of tiles that visits every tile row equally often, at up to `rounds` distances from the diagonal.
// Classes of up to kSmallSide tile rows are visited whole.
constexpr int64_t kSmallSide = 4;

__host__ __device__ inline int64_t sample_rounds(int64_t side, int64_t rounds) {
  return rounds < (side - 1) / 2 ? rounds : (side - 1) / 2;  // beyond that distances repeat
}
__host__ __device__ inline int64_t sample_tiles(int64_t side, int64_t rounds) {
  return side <= kSmallSide ? triangle(side) : side * sample_rounds(side, rounds);
}

__host__ __device__ inline TilePosition sample_tile(int64_t t, int64_t side, int64_t rounds) {
  if (side <= kSmallSide) return triangle_tile(t, side);
  const int64_t row = t % side;
  const int64_t distance = 1 + (2 * (t / side) + 1) * ((side - 1) / 2) / (2 * sample_rounds(side, rounds));
  const int64_t column = (row + distance) % side;
  return row < column ? TilePosition{row, column} : TilePosition{column, row};
}

enum Shape : int32_t { kTriangle = 0, kSample = 1, kRectangle = 2 };

// The tiles of one launch.
struct Work {
  const int64_t* offsets;     // [C + 1] rows of class c: offsets[c] to offsets[c + 1]
  const int64_t* tile_start;  // [C + 1] tiles of class c: tile_start[c] to tile_start[c + 1]
  int64_t first, last;        // the tiles to visit, of all classes' one list
  int64_t rounds;             // of the sample
  int64_t columns;            // of the rectangle; its rows are "class" 0
  int32_t shape;
};

struct Tile {
  int32_t c;              // class
  int32_t rows, columns;  // how many there are: m and m, or those of the rectangle
  int32_t i0, j0;         // first row and column of the tile
  int64_t row_base;       // row 0 of the class in the operand of the rows
  int64_t column_base;    // column 0 of the class in the operand of the columns
  bool triangular;        // only pairs i < j count
};

// `c` is where the search for the class begins: no class before that of the tile visited last.
__host__ __device__ inline Tile tile_at(const Work& work, int64_t t, int32_t c) {
  while (t >= work.tile_start[c + 1]) ++c;
  const int64_t base = work.offsets[c], m = work.offsets[c + 1] - base, local = t - work.tile_start[c];
  const int64_t side = ceil_div(m, kTile);
  Tile tile;
  tile.c = c;
  tile.rows = static_cast<int32_t>(m);
  tile.row_base = base;
  tile.triangular = work.shape != kRectangle;
  TilePosition at;
  if (work.shape == kRectangle) {
    tile.columns = static_cast<int32_t>(work.columns);
    tile.column_base = 0;
    at = {local % side, local / side};
  } else {
    tile.columns = tile.rows;
    tile.column_base = base;
    at = work.shape == kTriangle ? triangle_tile(local, side) : sample_tile(local, side, work.rounds);
  }
  tile.i0 = static_cast<int32_t>(at.row * kTile);
  tile.j0 = static_cast<int32_t>(at.column * kTile);
  return tile;
}

// ---- squares of 2 x 2 tiles, which clusters of four blocks take together -----------------------------------

constexpr int kSquare = 2;  // tiles a side
constexpr int kSquareBlocks = kSquare * kSquare;

// The number t of which triangle_tile makes this place.
__host__ __device__ inline int64_t triangle_number(int64_t row, int64_t column, int64_t side) {
  const int64_t first = column / kGroup * kGroup;
  const int64_t width = side - first < kGroup ? side - first : kGroup;
  if (row < first) return triangle(first) + row * width + column - first;
  return triangle(first) + first * width + triangle(column - first) + row - first;
}

// How wide, in squares, the triangle is that holds the first `tiles` tiles of a class: all of it, or up to the end
// of the group of columns that the last of them is in.
__host__ __device__ inline int64_t squares_side(int64_t tiles, int64_t side) {
  if (tiles < triangle(side)) {
    const int64_t columns = (triangle_root(tiles - 1) / kGroup + 1) * kGroup;
    if (columns < side) side = columns;
  }
  return ceil_div(side, kSquare);
}

// A place in the one list of the squares of all classes; to go on is to add to `square`.
struct SquarePosition {
  int32_t c;       // class
  int64_t square;  // counted from its first one; may lie in a class further on
};

// The tile of block `rank` of a cluster in a square of the work, a triangle from its first tile on. c = -1 after the
// last square. rows = columns = 0 where nothing is to be done with the tile: below the diagonal, beyond the class,
// or beyond the last tile of the work.
__host__ __device__ inline Tile square_tile_at(const Work& work, SquarePosition& at, int rank) {
  Tile tile = {};
  tile.c = -1;
  for (;; ++at.c) {
    const int64_t start = work.tile_start[at.c];
    if (start >= work.last) return tile;
    const int64_t end = work.tile_start[at.c + 1], tiles = (end < work.last ? end : work.last) - start;
    if (tiles == 0) continue;
    const int64_t base = work.offsets[at.c], m = work.offsets[at.c + 1] - base, side = ceil_div(m, kTile);
    const int64_t squares = squares_side(tiles, side);
    if (at.square >= triangle(squares)) {
      at.square -= triangle(squares);
      continue;
    }
    const TilePosition square = triangle_tile(at.square, squares, kGroup / kSquare);
    const int64_t row = square.row * kSquare + rank / kSquare, column = square.column * kSquare + rank % kSquare;
    const bool counts = row <= column && column < side && triangle_number(row, column, side) < tiles;
    tile.c = at.c;
    tile.rows = tile.columns = counts ? static_cast<int32_t>(m) : 0;
    tile.i0 = static_cast<int32_t>(row * kTile);
    tile.j0 = static_cast<int32_t>(column * kTile);
    tile.row_base = tile.column_base = base;
    tile.triangular = true;
    return tile;
  }
}

// Whether every element of the tile is a pair to be counted.
__host__ __device__ inline bool is_inner(const Tile& tile) {
  return tile.i0 + kTile <= tile.rows && tile.j0 + kTile <= tile.columns &&
         (!tile.triangular || tile.i0 + kTile <= tile.j0);
}

__host__ __device__ inline bool is_pair(const Tile& tile, int32_t i, int32_t j) {
  return i < tile.rows && j < tile.columns && (!tile.triangular || i < j);
}

}  // namespace proto_engine
