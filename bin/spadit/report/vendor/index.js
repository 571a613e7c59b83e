// What explorer.js uses of D3; everything else is left out of d3.js.
export { Delaunay } from "d3-delaunay";
export { interpolateViridis } from "d3-scale-chromatic";
export { format } from "d3-format";
export { select } from "d3-selection";
export { zoom, zoomIdentity } from "d3-zoom";
