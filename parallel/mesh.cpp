#include "parallel/mesh.h"

namespace smoe {

Mesh Mesh::single() {
  Mesh mesh;
  std::shared_ptr<Communicator> self = make_self_communicator();
  mesh.groups_.fill(self);
  return mesh;
}

}  // namespace smoe
